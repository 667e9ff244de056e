"""Sources whose tests are Python with asserts: HumanEval(+), MBPP(+), LeetCode, KodCode.

The tests run in a process of their own, where the names they use are calls into the candidate's
process.
"""

import ast
import functools
import re
import sys
from typing import Any

from verl_pipeline.grading.problem import AssertTest, Problem, find_syntax_error
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.leetcode_nodes import NODE_NAMES, NODES_PRELUDE
from verl_pipeline.grading.readers.pair_readers import parse_json
from verl_pipeline.grading.readers.test_names import find_defined_names, find_used_names
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

_SOLUTION_IMPORT = re.compile(r"^\s*from\s+solution\s+import\s+(?P<names>.+?)\s*$", re.MULTILINE)


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
    if find_syntax_error(prelude) is None:  # otherwise Problem says so
        _refuse_unknown_names(tests, test.names, prelude, f"{source}/{name}")
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
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    text = "\n".join([*setup, *asserts])
    names = _find_own_names(text, row.get("code") or "", settings["prelude"])
    _refuse_unknown_names(text, names, settings["prelude"], f"{source}/{name}")
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
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    text = _check_syntax(row["test"], f"{source}/{name}")
    asserts = _check_syntax("\n".join(row["test_list"]), f"{source}/{name}")
    names = _find_own_names(asserts, row.get("code") or "", settings["prelude"])
    _refuse_unknown_names(text, names, settings["prelude"], f"{source}/{name}")
    return Problem(name, source, (AssertTest(text, names),), **settings)


def read_leetcode(tests: Any, *, name: str, source: str = "leetcode", **settings: Any) -> Problem:
    """Read a problem of LeetCode.

    Its ``functional`` has ``def check(candidate): ...`` and ``check(Solution().method)``.
    """
    if isinstance(tests, str) and tests.lstrip().startswith("{"):
        tests = parse_json(tests)
    text = tests.get("functional") if isinstance(tests, dict) else tests
    if not text:
        raise BadRow(f"{source}/{name}: no functional tests")
    _check_syntax(text, f"{source}/{name}")
    uses_nodes = not find_used_names(text).keys().isdisjoint(NODE_NAMES)
    settings.setdefault("prelude", IMPORTS_PRELUDE + NODES_PRELUDE * uses_nodes)
    _refuse_unknown_names(text, ("Solution",), settings["prelude"], f"{source}/{name}")
    return Problem(name, source, (AssertTest(text, ("Solution",)),), **settings)


def read_kodcode(tests: str, *, name: str, source: str = "kodcode", **settings: Any) -> Problem:
    """Read pytest functions that import the candidate's names from ``solution``."""
    imports = _SOLUTION_IMPORT.findall(tests or "")
    if not imports:
        raise BadRow(f"{source}/{name}: the tests import nothing from solution")
    names = tuple(
        part.strip() for line in imports for part in line.strip("()").split(",") if part.strip()
    )
    body = _check_syntax(_SOLUTION_IMPORT.sub("", tests), f"{source}/{name}")
    functions = [node.name for node in ast.parse(body).body if isinstance(node, ast.FunctionDef)]
    test_functions = [function for function in functions if function.startswith("test")]
    if not test_functions:
        raise BadRow(f"{source}/{name}: no test function")
    asserts = (
        AssertTest(f"{body}\n\n{function}()\n", names, objects=True) for function in test_functions
    )
    return Problem(name, source, tuple(asserts), **settings)


def _check_syntax(text: str, problem_name: str) -> str:
    if (error := find_syntax_error(text)) is not None:
        raise BadRow(f"{problem_name}: the tests are not valid Python: {error}")
    return text


def _find_own_names(text: str, reference: str, prelude: str) -> tuple[str, ...]:
    """Return the names of ``text`` that the reference solution defines.

    Without a reference solution, all names that nothing else defines.
    """
    used = find_used_names(text)
    if reference and find_syntax_error(reference) is None:
        top_level = ast.Module(ast.parse(reference).body, [])
        return tuple(name for name in used if name in _find_top_level_names(top_level))
    known = {*(find_defined_names(text) or ()), *(_find_prelude_names(prelude) or ())}
    return tuple(name for name in used if name not in known)


def _find_top_level_names(module: ast.Module) -> set[str]:
    """Return the functions, classes and constants of a module, but not what it imports."""
    names = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= find_defined_names(ast.unparse(node)) or set()
    return names


def _refuse_unknown_names(text: str, names: tuple[str, ...], prelude: str, problem: str) -> None:
    """Raise BadRow if the tests use a name that neither they nor the program can define."""
    defined, lent = find_defined_names(text), _find_prelude_names(prelude)
    if defined is None or lent is None:
        return
    known = {*names, *defined, *lent}
    if unknown := [name for name in find_used_names(text) if name not in known]:
        raise BadRow(f"{problem}: the tests use {', '.join(unknown)}, which nothing defines")


@functools.lru_cache(maxsize=64)
def _find_prelude_names(prelude: str) -> frozenset[str] | None:
    """Return the names that a prelude defines; None if they cannot be known."""
    rest = prelude.removeprefix(IMPORTS_PRELUDE)
    names = find_defined_names(rest)
    if names is None or rest == prelude:
        return names
    scope: dict[str, Any] = {}
    limit = sys.getrecursionlimit()
    exec(IMPORTS_PRELUDE, scope)  # our own text
    sys.setrecursionlimit(limit)
    return names | scope.keys()
