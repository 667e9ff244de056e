"""Sources whose tests are Python with asserts: HumanEval(+), MBPP(+), LeetCode, KodCode.

The source of the tests runs in the judge's own interpreter, where the names it uses are calls into
the candidate's.
"""

import ast
import builtins
import re
from typing import Any

from verl_pipeline.grading.problem import AssertTest, Problem, syntax_error
from verl_pipeline.grading.readers.errors import BadRow
from verl_pipeline.grading.readers.pairs import from_json
from verl_pipeline.sandbox.prelude import IMPORTS

_SOLUTION_IMPORT = re.compile(r"^\s*from\s+solution\s+import\s+(?P<names>.+?)\s*$", re.MULTILINE)


def read_humaneval(
    row: Any, *, name: str | None = None, source: str = "humaneval", **settings: Any
) -> Problem:
    """A row of HumanEval or HumanEval+ (``prompt``, ``test`` with ``check(candidate)``,
    ``entry_point``).
    """
    row = from_json(row)
    name = name or str(row.get("task_id", "?"))
    for field in ("prompt", "test", "entry_point"):
        if not row.get(field):
            raise BadRow(f"{source}/{name}: no {field}")
    tests = _parsed(f"{row['test']}\n\ncheck({row['entry_point']})\n", f"{source}/{name}")
    # Helpers that the prompt defines are the prompt's in the tests, whatever the candidate makes of
    # them.
    test = AssertTest(tests, (row["entry_point"],))
    prelude = row["prompt"]
    if syntax_error(prelude):  # it ends with the signature, or with a comment below it
        prelude = f"{prelude.rstrip()}\n    pass\n"
    return Problem(
        name, source, (test,), entry_point=row["entry_point"], prelude=prelude, **settings
    )


def read_mbpp(
    row: Any, *, name: str | None = None, source: str = "mbpp", **settings: Any
) -> Problem:
    """A row of MBPP, in full or sanitized form (``test_list``, ``test_setup_code`` or
    ``test_imports``).
    """
    row = from_json(row)
    name = name or str(row.get("task_id", "?"))
    asserts = row.get("test_list")
    if not asserts:
        raise BadRow(f"{source}/{name}: no test_list")
    setup = [row.get("test_setup_code") or "", *(row.get("test_imports") or [])]
    tests = [_parsed("\n".join([*setup, line]), f"{source}/{name}") for line in asserts]
    names = _called("\n".join([*setup, *asserts]), row.get("code") or "")
    settings.setdefault("prelude", IMPORTS)
    return Problem(name, source, tuple(AssertTest(test, names) for test in tests), **settings)


def read_mbpp_plus(
    row: Any, *, name: str | None = None, source: str = "mbppplus", **settings: Any
) -> Problem:
    """A row of MBPP+ as the hub has it: ``test`` is one script that calls the function on lists of
    inputs.
    """
    row = from_json(row)
    name = name or str(row.get("task_id", "?"))
    for field in ("test", "test_list"):
        if not row.get(field):
            raise BadRow(f"{source}/{name}: no {field}")
    test = AssertTest(
        _parsed(row["test"], f"{source}/{name}"),
        _called("\n".join(row["test_list"]), row.get("code") or ""),
    )
    settings.setdefault("prelude", IMPORTS)
    return Problem(name, source, (test,), **settings)


def read_leetcode(tests: Any, *, name: str, source: str = "leetcode", **settings: Any) -> Problem:
    """A problem whose ``functional`` is ``def check(candidate): ...`` and
    ``check(Solution().method)``.
    """
    if isinstance(tests, str) and tests.lstrip().startswith("{"):
        tests = from_json(tests)
    text = tests.get("functional") if isinstance(tests, dict) else tests
    if not text:
        raise BadRow(f"{source}/{name}: no functional tests")
    settings.setdefault("prelude", IMPORTS)
    return Problem(
        name, source, (AssertTest(_parsed(text, f"{source}/{name}"), ("Solution",)),), **settings
    )


def read_kodcode(tests: str, *, name: str, source: str = "kodcode", **settings: Any) -> Problem:
    """Pytest functions that import the candidate's names from ``solution``."""
    imports = _SOLUTION_IMPORT.findall(tests or "")
    if not imports:
        raise BadRow(f"{source}/{name}: the tests import nothing from solution")
    names = tuple(
        part.strip() for line in imports for part in line.strip("()").split(",") if part.strip()
    )
    body = _parsed(_SOLUTION_IMPORT.sub("", tests), f"{source}/{name}")
    functions = [node.name for node in ast.parse(body).body if isinstance(node, ast.FunctionDef)]
    chosen = [function for function in functions if function.startswith("test")]
    if not chosen:
        raise BadRow(f"{source}/{name}: no test function")
    asserts = (AssertTest(f"{body}\n\n{function}()\n", names, objects=True) for function in chosen)
    return Problem(name, source, tuple(asserts), **settings)


def _parsed(text: str, where: str) -> str:
    if (error := syntax_error(text)) is not None:
        raise BadRow(f"{where}: the tests are no Python: {error}")
    return text


def _called(text: str, reference: str) -> tuple[str, ...]:
    """Plain names that are called and that the reference solution defines; without one, that are no
    built-ins.
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
