"""Test cases of a row, whichever way they are laid out: pairs of input and output.

Layouts, of the sources and of what exporters make of them:

* an object of lists, ``{"inputs": [...], "outputs": [...], "fn_name"?: str}`` (TACO, APPS), with
  the fields ``input`` and ``output`` in CodeContests;
* a list of objects, ``[{"input", "output", "type"?, "fn_name"?}, ...]`` (PrimeIntellect,
  Codeforces, LiveCodeBench).

Libraries turn each of these into the other.

Invariants:
* Every test of the row becomes a case, or the row is refused: lists of unequal length, missing
  inputs or outputs, a field under two names.
* What a program reads ends in a newline, as a contest's input does.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from verl_pipeline.grading.problem import CallTest, StdinTest
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.row_values import (
    decode_text,
    describe_value,
    is_blank,
    is_missing,
    make_plain,
    open_container,
    parse_container,
    parse_integer,
    parse_object,
    parse_text,
)

_CONTENT = "inputs and outputs, as an object of lists or as a list of objects"
# An integer as ``str`` writes it.
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
# Larger integers are no longer exact in files that store numbers as doubles.
_MAX_EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class Case:
    """One test as the row has it: plain values, not yet read as text or arguments."""

    input: Any
    output: Any
    kind: str | None = None
    function: str | None = None
    metadata: Any = None


def read_cases(value: Any) -> list[Case]:
    """Read the test cases of any layout, in order; there may be none.

    Raises:
        BadRow: the layout is another one, or something is missing.
    """
    fields = parse_container(value, _CONTENT)
    rows = _split_columns(fields) if isinstance(fields, dict) else fields
    return [_read_case(row, number) for number, row in enumerate(rows, 1)]


def read_function_name(cases: Iterable[Case]) -> str | None:
    """Return the function that the cases name, or None if none of them names one.

    Raises:
        BadRow: they name several, or only some of them name one.
    """
    names = {case.function for case in cases}
    if len(names) > 1:
        listed = ", ".join(sorted(str(name) for name in names))
        raise BadRow(f"all tests must have one function, found {listed}")
    return names.pop() if names else None


def make_stdin_tests(cases: Iterable[Case]) -> tuple[StdinTest, ...]:
    """Make tests that run a program on standard input.

    Raises:
        BadRow: an input or output is no text, or no test expects any output: a program that prints
            nothing would pass.
    """
    tests = tuple(
        StdinTest(
            _end_last_line(_read_stream(case.input, f"input {number}", is_input=True)),
            _read_stream(case.output, f"output {number}", is_input=False),
        )
        for number, case in enumerate(cases, 1)
    )
    if not any(test.output.strip() for test in tests):
        raise BadRow("no test expects any output")
    return tests


def make_call_tests(cases: Iterable[Case]) -> tuple[CallTest, ...]:
    """Make tests that call a function; text arguments hold one JSON value per line.

    If every output is a list of one element, and no JSON text, the row does not say whether the
    list is the expected value or a wrapper around it: then both are accepted (``boxed``).
    """
    cases = list(cases)
    outputs = [_read_output(case, number) for number, case in enumerate(cases, 1)]
    if all(output in (None, [None]) for output in outputs):
        raise BadRow("no test expects a value: a function that does nothing would pass")
    boxed = all(
        not isinstance(case.output, str) and isinstance(output, list | tuple) and len(output) == 1
        for case, output in zip(cases, outputs, strict=True)
    )
    return tuple(
        CallTest(read_arguments(case.input, number), output[0] if boxed else output, boxed)
        for number, (case, output) in enumerate(zip(cases, outputs, strict=True), 1)
    )


def read_arguments(value: Any, number: int) -> tuple[Any, ...]:
    """Return arguments that are a list, or text with one JSON value per line.

    Lines end at newlines only: JSON text may contain other line separators.
    """
    if isinstance(value, str):
        value = [make_plain(parse_text(line)) for line in value.split("\n") if line.strip()]
    if not isinstance(value, list | tuple):
        raise BadRow(
            f"input {number}: expected arguments as a list or as lines of JSON, found "
            f"{describe_value(value)}"
        )
    return tuple(map(restore_integer_keys, value))


def restore_integer_keys(value: Any) -> Any:
    """Turn the keys of each dict in an argument back into integers if all of them are integers.

    JSON has text keys only. Keys that no integer is written as, such as ``"01"``, stay text, and
    with them all keys of their dict. (In an expected output all keys stay text;
    :func:`~verl_pipeline.grading.output_comparison.is_matching_value` accepts both.)
    """
    if isinstance(value, list | tuple):
        return type(value)(map(restore_integer_keys, value))
    if not isinstance(value, dict):
        return value
    is_restored = all(isinstance(key, str) and _INTEGER.fullmatch(key) for key in value)
    return {
        parse_integer(key) if is_restored else key: restore_integer_keys(item)
        for key, item in value.items()
    }


def _split_columns(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn an object of lists into a list of objects; other fields hold for all of them."""
    columns: dict[str, list[Any]] = {}
    for name in ("inputs", "input", "outputs", "output"):
        if name in fields and not is_missing(fields[name]):
            columns[name] = parse_container(fields[name], f"{name} as a list")
    if not columns.keys() & {"inputs", "input"} or not columns.keys() & {"outputs", "output"}:
        raise BadRow(f"expected {_CONTENT}, found an object with {_list_names(fields)}")
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1 or any(isinstance(one, dict) for one in columns.values()):
        raise BadRow(" and ".join(f"{count} {name}" for name, count in counts.items()))
    count = next(iter(counts.values()))
    for name in ("type", "testtype", "fn_name", "metadata"):
        field = open_container(fields.get(name))
        columns[name] = field if isinstance(field, list) else [field] * count
        if len(columns[name]) != count:
            raise BadRow(f"{len(columns[name])} {name} for {count} tests")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read_case(row: Any, number: int) -> Case:
    fields = parse_object(row, f"test {number} as an object with input and output")
    test_input = make_plain(_get_field(fields, number, "input", "inputs"))
    output = make_plain(_get_field(fields, number, "output", "outputs"))
    if isinstance(test_input, str | bytes):
        test_input = decode_text(test_input)
        output = decode_text(output) if isinstance(output, bytes) else output
    return Case(
        test_input,
        output,
        _get_name(fields, number, "type", "testtype"),
        _get_name(fields, number, "fn_name"),
        fields.get("metadata"),
    )


def _get_field(fields: dict[str, Any], number: int, *names: str) -> Any:
    """Return the field that has one of ``names``; it may be null if it has no value elsewhere."""
    found = [name for name in names if name in fields]
    values = [fields[name] for name in found if not is_missing(fields[name])]
    if not found or len(values) > 1:
        problem = f"both {' and '.join(found)}" if found else f"no {names[0]}"
        raise BadRow(f"test {number} has {problem}; it has {_list_names(fields)}")
    return values[0] if values else fields[found[0]]


def _get_name(fields: dict[str, Any], number: int, *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        if not is_blank(value):
            if not isinstance(value, str):
                raise BadRow(f"test {number}: {name} is {describe_value(value)}")
            return value.strip() or None
    return None


def _read_stream(value: Any, content: str, *, is_input: bool) -> str:
    """Return what a program reads or prints, of text, a list of lines or a number.

    A number is what ``print`` makes of it. Refused, because the row does not say what was meant:
    true and false, several numbers, and floats that may have been integers once (5.0).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        if all(isinstance(line, str) for line in value):
            return "\n".join(value)
        if len(value) == 1 and not isinstance(value[0], list | tuple):
            return _read_stream(value[0], content, is_input=is_input)
    if type(value) is int:
        return _write_integer(value)
    # As output, 5.0 is compared by value, so that 5 is accepted as well.
    if type(value) is float and abs(value) < _MAX_EXACT_FLOAT:
        if not (is_input and value.is_integer()):
            return repr(value)
    raise BadRow(f"{content} is {describe_value(value)}: expected text, or a list of lines")


def _write_integer(value: int) -> str:
    """Write an integer of any length; ``str`` refuses more than 4,300 digits."""
    if value < 0:
        return f"-{_write_integer(-value)}"
    if value < 10**4000:
        return str(value)
    digits = value.bit_length() * 3 // 20
    high, low = divmod(value, 10**digits)
    return _write_integer(high) + _write_integer(low).zfill(digits)


def _end_last_line(text: str) -> str:
    """Add the newline that ends a contest's input; no input at all stays as it is."""
    return text if not text or text.endswith("\n") else f"{text}\n"


def _read_output(case: Case, number: int) -> Any:
    """Return the expected value; with text arguments it is JSON text, or else text itself."""
    if isinstance(case.output, float) and is_missing(case.output):
        raise BadRow(f"output {number} is NaN, which pandas writes for a missing value")
    if not (isinstance(case.input, str) and isinstance(case.output, str)):
        return case.output
    try:
        return make_plain(parse_text(case.output))
    except BadRow:
        return case.output


def _list_names(fields: dict[str, Any]) -> str:
    return ", ".join(map(str, fields)) or "no fields"
