"""Sources whose tests are Python with asserts: HumanEval(+), MBPP(+), CRUXEval, LeetCode.

The tests run in a process of their own, where the names they use are calls into the candidate's
process.

Invariant: every assert of a row may run, and the tests use the candidate; otherwise a program could
pass without them, and the row is refused.
"""

import ast
from typing import Any

from verl_pipeline.grading.problem import AssertTest, Problem, find_syntax_error
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.leetcode_nodes import NODE_NAMES, NODES_PRELUDE
from verl_pipeline.grading.readers.reachable_asserts import TestScript, parse_script
from verl_pipeline.grading.readers.row_values import (
    is_blank,
    is_missing,
    make_plain,
    parse_container,
    parse_list,
    parse_object,
    read_text,
    shorten_integers,
)
from verl_pipeline.grading.readers.used_names import find_own_names, refuse_unknown_names
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE


def read_humaneval(
    row: Any, *, name: str | None = None, source: str = "humaneval", **settings: Any
) -> Problem:
    """Read a row of HumanEval or HumanEval+.

    Fields: ``prompt``, ``entry_point`` and ``test``, which defines ``check(candidate)``.
    """
    row = parse_object(row, "a row with prompt, test and entry_point")
    name = name or str(row.get("task_id", "?"))
    prelude, tests, entry_point = (
        _read_field(row, field) for field in ("prompt", "test", "entry_point")
    )
    if not entry_point.isidentifier():
        raise BadRow(f"entry_point {entry_point!r} is no name of a function")
    tests = f"{tests}\n\ncheck({entry_point})\n"
    _check_syntax(tests, "test")
    # Only the entry point is the candidate's: the tests use helper functions as the prompt defines
    # them, even if the candidate redefines them.
    test = AssertTest(tests, (entry_point,))
    # A prompt that ends with a signature, or with a comment below it, has no function body yet.
    if find_syntax_error(prelude):
        prelude = f"{prelude.rstrip()}\n    pass\n"
        if "prelude" not in settings:
            _check_syntax(prelude, "prompt")
    settings = {"entry_point": entry_point, "prelude": prelude, **settings}
    if find_syntax_error(settings["prelude"]) is None:  # otherwise Problem says so
        refuse_unknown_names(tests, test.names, settings["prelude"])
    _check_use_of_candidate(parse_script(tests))
    return Problem(name, source, (test,), **settings)


def read_mbpp(
    row: Any, *, name: str | None = None, source: str = "mbpp", **settings: Any
) -> Problem:
    """Read a row of MBPP, in full or sanitized form.

    Fields: ``test_list``, ``challenge_test_list`` (11 rows of 974 have one), and
    ``test_setup_code`` or ``test_imports``.
    """
    row = parse_object(row, "a row with test_list")
    name = name or str(row.get("task_id", "?"))
    asserts = _read_lines(row, "test_list")
    if not asserts:
        raise BadRow("test_list is empty; expected a list of asserts")
    asserts += _read_lines(row, "challenge_test_list")
    setup = [_read_optional_text(row, "test_setup_code"), *_read_lines(row, "test_imports")]
    tests = ["\n".join([*setup, line]) for line in asserts]
    scripts = [_parse_assert(test, line) for test, line in zip(tests, asserts, strict=True)]
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    text = "\n".join([*setup, *asserts])
    names = find_own_names(text, _read_optional_text(row, "code"), settings["prelude"])
    refuse_unknown_names(text, names, settings["prelude"])
    for line, script in zip(asserts, scripts, strict=True):
        if not script.names & set(names):
            raise BadRow(f"a test calls none of the program's functions: {line[:80]!r}")
    return Problem(name, source, tuple(AssertTest(test, names) for test in tests), **settings)


def read_mbpp_plus(
    row: Any, *, name: str | None = None, source: str = "mbppplus", **settings: Any
) -> Problem:
    """Read a row of MBPP+ as the hub has it.

    Its ``test`` is one script that calls the function with each of a list of inputs.
    """
    row = parse_object(row, "a row with test and test_list")
    name = name or str(row.get("task_id", "?"))
    tests = _read_field(row, "test")
    asserts = _check_syntax("\n".join(_read_lines(row, "test_list")), "test_list")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    names = find_own_names(asserts, _read_optional_text(row, "code"), settings["prelude"])
    if not parse_script(tests).names & set(names):
        raise BadRow("the tests call none of the functions that test_list calls")
    refuse_unknown_names(tests, names, settings["prelude"])
    return Problem(name, source, (AssertTest(tests, names),), **settings)


def read_cruxeval(
    row: Any, *, name: str | None = None, source: str = "cruxeval", **settings: Any
) -> Problem:
    """Read a row of CRUXEval: ``code`` defines ``f``, which turns ``input`` into ``output``.

    ``input`` (the arguments) and ``output`` are Python source.
    """
    row = parse_object(row, "a row with code, input and output")
    name = name or str(row.get("id", "?"))
    # It may be empty: f takes no arguments.
    arguments, output = (
        shorten_integers(read_text(row.get("input"), "input")),
        _read_field(row, "output"),
    )
    text = _check_syntax(f"assert f({arguments}) == {output}", "input or output")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    names = find_own_names(text, _read_field(row, "code"), settings["prelude"])
    try:
        refuse_unknown_names(text, names, settings["prelude"])
    except BadRow as error:
        raise BadRow(f"input or output: {error}") from error
    return Problem(name, source, (AssertTest(text, names),), **settings)


def read_leetcode(tests: Any, *, name: str, source: str = "leetcode", **settings: Any) -> Problem:
    """Read a problem of LeetCode.

    Its ``functional`` has ``def check(candidate): ...`` and ``check(Solution().method)``.
    """
    value = make_plain(tests)
    # Text that is no object is the script itself, unless it is such text within text.
    if not isinstance(value, str | bytes) or value.lstrip()[:1] in tuple('{"') + (b"{", b'"'):
        try:
            value = parse_container(value, "an object with functional tests")
        except BadRow:
            if not isinstance(value, str | bytes) or value.lstrip()[:1] in ("{", b"{"):
                raise
    if isinstance(value, list):
        raise BadRow("expected an object with functional tests, found a list")
    text = _read_field(value if isinstance(value, dict) else {"functional": value}, "functional")
    script = parse_script(text)
    if "Solution" not in script.names:
        raise BadRow("the functional tests do not use Solution")
    _check_use_of_candidate(script)
    uses_nodes = not script.names.isdisjoint(NODE_NAMES)
    settings.setdefault("prelude", IMPORTS_PRELUDE + NODES_PRELUDE * uses_nodes)
    refuse_unknown_names(text, ("Solution",), settings["prelude"])
    return Problem(name, source, (AssertTest(text, ("Solution",)),), **settings)


def _read_field(row: dict[str, Any], field: str) -> str:
    text = read_text(row.get(field), field)
    if not text.strip():
        raise BadRow(f"{field} is empty; expected text")
    return shorten_integers(text)


def _read_optional_text(row: dict[str, Any], field: str) -> str:
    return "" if is_missing(row.get(field)) else shorten_integers(read_text(row[field], field))


def _read_lines(row: dict[str, Any], field: str) -> list[str]:
    """Return a field that is a list of texts; a missing one is empty."""
    if is_blank(row.get(field)):
        return []
    return [
        shorten_integers(read_text(line, f"{field}[{index}]"))
        for index, line in enumerate(parse_list(row[field], f"{field} as a list of text"))
    ]


def _parse_assert(test: str, line: str) -> TestScript:
    """Parse a test of MBPP; ``line`` is what its list has, without what sets the test up."""
    try:
        return parse_script(test)
    except BadRow as error:
        raise BadRow(f"test_list has {line[:80]!r}: {error}") from error


def _check_syntax(text: str, field: str) -> str:
    if (error := find_syntax_error(text)) is not None:
        raise BadRow(f"{field}: not valid Python: {error}")
    return text


def _check_use_of_candidate(script: TestScript) -> None:
    """Refuse ``check(candidate)`` that does not use its argument, or is not defined."""
    functions = [node for node in script.tree.body if isinstance(node, ast.FunctionDef)]
    checks = [function for function in functions if function.name == "check"]
    if not checks:
        raise BadRow("the tests define no function check(candidate)")
    parameters = [argument.arg for argument in checks[-1].args.args]
    used = {node.id for node in ast.walk(checks[-1]) if isinstance(node, ast.Name)}
    if not used & set(parameters[:1]):
        raise BadRow("check(candidate) does not use its argument")
