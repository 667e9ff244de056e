"""Sources whose tests are pairs of input and output: TACO, PrimeIntellect, Codeforces and others.

Formats as published, each of them also as text, as a struct, or as the whole row that holds it:

* TACO, APPS, CodeContests: ``{"inputs": [...], "outputs": [...], "fn_name"?: str}``;
* PrimeIntellect, SYNTHETIC-1:
  ``[{"type": "stdin_stdout" | "function_call", "input", "output", "fn_name"}, ...]``;
* Codeforces, CodeElo: ``[{"input", "output"}, ...]``.

With ``fn_name``, the arguments are either a list, or text with one JSON value per line; in the
second case the output is JSON text. :mod:`.case_values` says which layouts are read.
"""

from typing import Any

from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.case_values import (
    Case,
    make_call_tests,
    make_stdin_tests,
    read_cases,
    read_function_name,
)
from verl_pipeline.grading.readers.row_values import (
    is_blank,
    is_missing,
    make_plain,
    parse_container,
)
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

# Fields of a row that hold its tests: of TACO and APPS, of PrimeIntellect (and, within it, the
# list), of Codeforces, and of rLLM's copies.
TEST_FIELDS = ("input_output", "verification_info", "test_cases", "official_tests", "tests")
# CodeContests has its tests in three groups.
TEST_GROUPS = ("public_tests", "private_tests", "generated_tests")


def read_taco(tests: Any, *, name: str, source: str = "taco", **settings: Any) -> Problem:
    """Read a problem of TACO, APPS or CodeContests; ``settings`` are fields of :class:`Problem`."""
    return _make_problem(_read_cases(tests), name, source, settings)


def read_primeintellect(
    tests: Any, *, name: str, source: str = "primeintellect", **settings: Any
) -> Problem:
    """Read a problem of PrimeIntellect's SYNTHETIC-1: ``verification_info`` or its test cases."""
    cases = _read_cases(tests)
    if any(case.kind is None for case in cases):
        raise BadRow("a test case has no type")
    return _make_problem(cases, name, source, settings)


def read_codeforces(
    tests: Any, *, name: str, source: str = "codeforces", **settings: Any
) -> Problem:
    """Read a problem of Codeforces or CodeElo."""
    return _make_problem(_read_cases(tests), name, source, settings)


def read_groups(row: dict[str, Any]) -> list[Case]:
    """Read the tests of all of CodeContests' groups; a group may be empty, but not missing."""
    cases: list[Case] = []
    for group in TEST_GROUPS:
        if is_missing(row.get(group)):
            raise BadRow(f"no {group}; a group without tests is an empty list")
        try:
            cases += read_cases(row[group])
        except BadRow as error:
            raise BadRow(f"{group}: {error}") from error
    return cases


def _read_cases(tests: Any) -> list[Case]:
    """Read the tests, or the tests of the row that ``tests`` is."""
    value = parse_container(tests, "tests with inputs and outputs")
    while isinstance(value, dict):
        if value.keys() >= set(TEST_GROUPS):
            return read_groups(value)
        found = [name for name in TEST_FIELDS if not is_blank(value.get(name))]
        if not found:
            break
        if any(make_plain(value[name]) != make_plain(value[found[0]]) for name in found):
            raise BadRow(f"different tests in {' and '.join(found)}: name one field")
        if value.get("official_tests_complete") is False:
            raise BadRow("official_tests_complete is false: the source has cut its tests")
        value = parse_container(value[found[0]], f"{found[0]} with inputs and outputs")
    return read_cases(value)


def _make_problem(cases: list[Case], name: str, source: str, settings: dict[str, Any]) -> Problem:
    """Make a problem of cases that all have one type and one function."""
    if not cases:
        raise BadRow("no tests")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    kinds = {case.kind for case in cases}
    if kinds <= {"stdin_stdout", "stdin"}:
        return Problem(name, source, make_stdin_tests(cases), **settings)
    function = read_function_name(cases)
    if kinds == {None} and not function:
        return Problem(name, source, make_stdin_tests(cases), **settings)
    if not (kinds == {None} or kinds <= {"function_call", "functional"}) or not function:
        raise BadRow(
            "type and fn_name: expected one type for all tests, and a function for those of type "
            f"function_call; found the types {', '.join(sorted(kind or 'none' for kind in kinds))} "
            f"and {'no function' if function is None else f'the function {function!r}'}"
        )
    if not function.isidentifier():
        raise BadRow(f"fn_name {function!r} is no name of a function")
    return Problem(name, source, make_call_tests(cases), entry_point=function, **settings)
