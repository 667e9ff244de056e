"""Sources whose tests are pairs of input and output: TACO, PrimeIntellect, Codeforces and others.

Formats as published:

* TACO, APPS, CodeContests: ``{"inputs": [...], "outputs": [...], "fn_name"?: str}``, or that as
  JSON text;
* PrimeIntellect, SYNTHETIC-1:
  ``[{"type": "stdin_stdout" | "function_call", "input", "output", "fn_name"}, ...]``;
* Codeforces, CodeElo: ``[{"input", "output"}, ...]``.

With ``fn_name``, the arguments are either a list, or text with one JSON value per line; in the
second case the output is JSON text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from verl_pipeline.grading.problem import CallTest, Problem, StdinTest
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE


def read_taco(tests: Any, *, name: str, source: str = "taco", **settings: Any) -> Problem:
    """Read a problem of TACO, APPS or CodeContests; ``settings`` are fields of :class:`Problem`."""
    fields = parse_json(tests)
    if not isinstance(fields, Mapping) or not {"inputs", "outputs"} <= fields.keys():
        raise BadRow(
            f"{source}/{name}: expected an object with inputs and outputs, found "
            f"{type(fields).__name__}"
        )
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    inputs, outputs = fields["inputs"], fields["outputs"]
    if len(inputs) != len(outputs) or not inputs:
        raise BadRow(f"{source}/{name}: {len(inputs)} inputs and {len(outputs)} outputs")
    entry_point = fields.get("fn_name")
    if not entry_point:
        pairs = zip(inputs, outputs, strict=True)
        stdin_tests = tuple(
            StdinTest(_join_text(stdin), _join_text(output)) for stdin, output in pairs
        )
        return Problem(name, source, stdin_tests, **settings)
    calls = _make_call_tests(inputs, outputs)
    return Problem(name, source, calls, entry_point=entry_point, **settings)


def read_primeintellect(
    tests: Any, *, name: str, source: str = "primeintellect", **settings: Any
) -> Problem:
    """Read a problem of PrimeIntellect's SYNTHETIC-1: ``verification_info`` or its test cases."""
    cases = parse_json(tests)
    if isinstance(cases, Mapping):
        cases = parse_json(cases.get("test_cases"))
    if not isinstance(cases, list) or not cases:
        raise BadRow(f"{source}/{name}: expected a list of test cases")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    kinds = {case.get("type") for case in cases}
    if kinds == {"stdin_stdout"}:
        return Problem(name, source, _make_stdin_tests(cases), **settings)
    names = {case.get("fn_name") for case in cases}
    if kinds != {"function_call"} or len(names) != 1 or not all(names):
        raise BadRow(
            f"{source}/{name}: all tests must have one type and one function, found types "
            f"{sorted(map(str, kinds))} and functions {sorted(map(str, names))}"
        )
    calls = _make_call_tests([case["input"] for case in cases], [case["output"] for case in cases])
    return Problem(name, source, calls, entry_point=names.pop(), **settings)


def read_codeforces(
    tests: Any, *, name: str, source: str = "codeforces", **settings: Any
) -> Problem:
    """Read a problem of Codeforces or CodeElo."""
    cases = parse_json(tests)
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise BadRow(f"{source}/{name}: expected a list of objects with input and output")
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    return Problem(name, source, _make_stdin_tests(cases), **settings)


def parse_json(value: Any) -> Any:
    """Parse ``value`` as JSON if it is text, and return it unchanged otherwise.

    Raises:
        BadRow: it is text, but not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadRow(f"not valid JSON: {error}") from error


def _make_stdin_tests(cases: Sequence[Mapping[str, Any]]) -> tuple[StdinTest, ...]:
    return tuple(StdinTest(_join_text(case["input"]), _join_text(case["output"])) for case in cases)


def _join_text(value: Any) -> str:
    """Return text unchanged; join a list of lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise BadRow(f"expected text, found {type(value).__name__}")


def _make_call_tests(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[CallTest, ...]:
    """Pair arguments with outputs.

    If every output is a list of one element, and no JSON text, the row does not say whether the
    list is the expected value or a wrapper around it: then both are accepted (``boxed``).
    """
    values = [
        _parse_output(output, isinstance(arguments, str))
        for arguments, output in zip(inputs, outputs, strict=True)
    ]
    boxed = all(isinstance(output, list) and len(output) == 1 for output in outputs)
    return tuple(
        CallTest(_parse_arguments(arguments), value[0] if boxed else value, boxed)
        for arguments, value in zip(inputs, values, strict=True)
    )


def _parse_output(output: Any, is_json: bool) -> Any:
    """Return the value; text that is not valid JSON is the value itself."""
    if not (is_json and isinstance(output, str)):
        return output
    try:
        return json.loads(output)
    except ValueError:
        return output


def _parse_arguments(arguments: Any) -> tuple[Any, ...]:
    """Return arguments that are a list, or text with one JSON value per line."""
    if isinstance(arguments, str):
        arguments = [parse_json(line) for line in arguments.splitlines() if line.strip()]
    if not isinstance(arguments, list):
        raise BadRow(
            f"expected arguments as a list or as lines of JSON, found {type(arguments).__name__}"
        )
    return tuple(map(restore_integer_keys, arguments))


def restore_integer_keys(value: Any) -> Any:
    """Turn the keys of an argument back into integers if all of them are texts of integers.

    JSON has text keys only. (In an expected output they stay text;
    :func:`~verl_pipeline.grading.output_comparison.is_matching_value` accepts both.)
    """
    if isinstance(value, dict) and value and all(_is_integer_text(key) for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _is_integer_text(key: Any) -> bool:
    return (
        isinstance(key, str) and key.removeprefix("-").isascii() and key.removeprefix("-").isdigit()
    )
