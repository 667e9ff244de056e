"""Sources whose tests are Python with asserts: HumanEval(+), MBPP(+), LeetCode.

The tests run in a process of their own, where the names they use are calls into the candidate's
process.
"""

import ast
import builtins
from typing import Any

from verl_pipeline.grading.problem import AssertTest, Problem, find_syntax_error
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pair_readers import parse_json
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE


def read_humaneval(
    row: Any, *, name: str | None = None, source: str = "humaneval", **settings: Any
) -> Problem:
    """Read a row of HumanEval or HumanEval+.

    Fields: ``prompt``, ``entry_point`` and ``test``, which defines ``check(candidate)``.
    """
    row = parse_json(row)
    name = name or str(row.get("task_id", "?"))
    for field in ("prompt", "test", "entry_point"):
        if not row.get(field):
            raise BadRow(f"{source}/{name}: no {field}")
    tests = _check_syntax(f"{row['test']}\n\ncheck({row['entry_point']})\n", f"{source}/{name}")
    # Only the entry point is the candidate's: the tests use helper functions as the prompt defines
    # them, even if the candidate redefines them.
    test = AssertTest(tests, (row["entry_point"],))
    prelude = row["prompt"]
    # A prompt that ends with a signature, or with a comment below it, has no function body yet.
    if find_syntax_error(prelude):
        prelude = f"{prelude.rstrip()}\n    pass\n"
    return Problem(
        name, source, (test,), entry_point=row["entry_point"], prelude=prelude, **settings
    )


def read_mbpp(
    row: Any, *, name: str | None = None, source: str = "mbpp", **settings: Any
) -> Problem:
    """Read a row of MBPP, in full or sanitized form.

    Fields: ``test_list``, and ``test_setup_code`` or ``test_imports``.
    """
    row = parse_json(row)
    name = name or str(row.get("task_id", "?"))
    asserts = row.get("test_list")
    if not asserts:
        raise BadRow(f"{source}/{name}: no test_list")
    setup = [row.get("test_setup_code") or "", *(row.get("test_imports") or [])]
    tests = [_check_syntax("\n".join([*setup, line]), f"{source}/{name}") for line in asserts]
    names = _find_called_names("\n".join([*setup, *asserts]), row.get("code") or "")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    return Problem(name, source, tuple(AssertTest(test, names) for test in tests), **settings)


def read_mbpp_plus(
    row: Any, *, name: str | None = None, source: str = "mbppplus", **settings: Any
) -> Problem:
    """Read a row of MBPP+ as the hub has it.

    Its ``test`` is one script that calls the function with each of a list of inputs.
    """
    row = parse_json(row)
    name = name or str(row.get("task_id", "?"))
    for field in ("test", "test_list"):
        if not row.get(field):
            raise BadRow(f"{source}/{name}: no {field}")
    test = AssertTest(
        _check_syntax(row["test"], f"{source}/{name}"),
        _find_called_names("\n".join(row["test_list"]), row.get("code") or ""),
    )
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    return Problem(name, source, (test,), **settings)


def read_leetcode(tests: Any, *, name: str, source: str = "leetcode", **settings: Any) -> Problem:
    """Read a problem of LeetCode.

    Its ``functional`` has ``def check(candidate): ...`` and ``check(Solution().method)``.
    """
    if isinstance(tests, str) and tests.lstrip().startswith("{"):
        tests = parse_json(tests)
    text = tests.get("functional") if isinstance(tests, dict) else tests
    if not text:
        raise BadRow(f"{source}/{name}: no functional tests")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    test = AssertTest(_check_syntax(text, f"{source}/{name}"), ("Solution",))
    return Problem(name, source, (test,), **settings)


def _check_syntax(text: str, problem_name: str) -> str:
    if (error := find_syntax_error(text)) is not None:
        raise BadRow(f"{problem_name}: the tests are not valid Python: {error}")
    return text


def _find_called_names(text: str, reference: str) -> tuple[str, ...]:
    """Return the plain names that ``text`` calls and the reference solution defines.

    Without a reference solution, all called names that are not built in.
    """
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = dict.fromkeys(call.id for call in calls if isinstance(call, ast.Name))
    defined = [
        node.name
        for node in ast.parse(reference).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    return tuple(
        name for name in names if (name in defined if reference else not hasattr(builtins, name))
    )
