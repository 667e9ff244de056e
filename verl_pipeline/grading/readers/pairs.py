"""Sources whose tests are pairs of input and output: TACO, APPS and CodeContests, PrimeIntellect,
Codeforces.

Shapes as published:

* TACO, APPS, CodeContests: ``{"inputs": [...], "outputs": [...], "fn_name"?: str}``, or that as
  JSON text;
* PrimeIntellect, SYNTHETIC-1: ``[{"type": "stdin_stdout" | "function_call", "input", "output", "fn_name"}, ...]``;
* Codeforces, CodeElo: ``[{"input", "output"}, ...]``.

With ``fn_name``, arguments are a list, or text with one JSON value a line; in the second case the
output is JSON text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from verl_pipeline.grading.problem import CallTest, Problem, StdinTest
from verl_pipeline.grading.readers.errors import BadRow
from verl_pipeline.sandbox.prelude import IMPORTS


def read_taco(tests: Any, *, name: str, source: str = "taco", **settings: Any) -> Problem:
    """A problem of TACO, APPS or CodeContests; ``settings`` are further fields of :class:`Problem`."""
    fields = from_json(tests)
    if not isinstance(fields, Mapping) or not {"inputs", "outputs"} <= fields.keys():
        raise BadRow(
            f"{source}/{name}: an object with inputs and outputs is expected, not "
            f"{type(fields).__name__}"
        )
    settings.setdefault("prelude", IMPORTS)
    inputs, outputs = fields["inputs"], fields["outputs"]
    if len(inputs) != len(outputs) or not inputs:
        raise BadRow(f"{source}/{name}: {len(inputs)} inputs and {len(outputs)} outputs")
    entry_point = fields.get("fn_name")
    if not entry_point:
        pairs = zip(inputs, outputs, strict=True)
        stdin = tuple(StdinTest(_text(given), _text(wanted)) for given, wanted in pairs)
        return Problem(name, source, stdin, **settings)
    return Problem(name, source, _calls(inputs, outputs), entry_point=entry_point, **settings)


def read_primeintellect(
    tests: Any, *, name: str, source: str = "primeintellect", **settings: Any
) -> Problem:
    """A problem of PrimeIntellect's SYNTHETIC-1 (``verification_info`` or its ``test_cases``)."""
    cases = from_json(tests)
    if isinstance(cases, Mapping):
        cases = from_json(cases.get("test_cases"))
    if not isinstance(cases, list) or not cases:
        raise BadRow(f"{source}/{name}: a list of test cases is expected")
    settings.setdefault("prelude", IMPORTS)
    kinds = {case.get("type") for case in cases}
    if kinds == {"stdin_stdout"}:
        stdin = tuple(StdinTest(_text(case["input"]), _text(case["output"])) for case in cases)
        return Problem(name, source, stdin, **settings)
    names = {case.get("fn_name") for case in cases}
    if kinds != {"function_call"} or len(names) != 1 or not all(names):
        raise BadRow(
            f"{source}/{name}: types {sorted(map(str, kinds))}, functions "
            f"{sorted(map(str, names))}: one of each"
        )
    calls = _calls([case["input"] for case in cases], [case["output"] for case in cases])
    return Problem(name, source, calls, entry_point=names.pop(), **settings)


def read_codeforces(
    tests: Any, *, name: str, source: str = "codeforces", **settings: Any
) -> Problem:
    """A problem of Codeforces or CodeElo."""
    cases = from_json(tests)
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise BadRow(f"{source}/{name}: a list of input and output is expected")
    settings.setdefault("prelude", IMPORTS)
    stdin = tuple(StdinTest(_text(case["input"]), _text(case["output"])) for case in cases)
    return Problem(name, source, stdin, **settings)


def from_json(value: Any) -> Any:
    """``value``, read as JSON if it is text.

    Raises:
        BadRow: it is text and no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadRow(f"no JSON: {error}") from error


def _text(value: Any) -> str:
    """Text, or lines of text as a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise BadRow(f"text is expected, not {type(value).__name__}")


def _calls(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[CallTest, ...]:
    """Where every output is a list of one, and no text, the row does not say whether that is the
    value or around it.
    """
    values = [
        _value(output, isinstance(given, str))
        for given, output in zip(inputs, outputs, strict=True)
    ]
    boxed = all(isinstance(output, list) and len(output) == 1 for output in outputs)
    return tuple(
        CallTest(_arguments(given), value[0] if boxed else value, boxed)
        for given, value in zip(inputs, values, strict=True)
    )


def _value(output: Any, is_json: bool) -> Any:
    """A value, or JSON text of one; text that is no JSON is the value."""
    if not (is_json and isinstance(output, str)):
        return output
    try:
        return json.loads(output)
    except ValueError:
        return output


def _arguments(given: Any) -> tuple[Any, ...]:
    """Arguments as a list, or as text with one JSON value a line."""
    if isinstance(given, str):
        given = [from_json(line) for line in given.splitlines() if line.strip()]
    if not isinstance(given, list):
        raise BadRow(
            f"arguments are expected as a list or as lines of JSON, not {type(given).__name__}"
        )
    return tuple(map(integer_keys, given))


def integer_keys(value: Any) -> Any:
    """An argument's integer keys, which JSON has turned into text: turned back where all of them
    are integers.

    (In an expected output they stay text; :func:`~verl_pipeline.grading.compare.value_matches`
    knows both.)
    """
    if isinstance(value, dict) and value and all(_is_integer(key) for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _is_integer(key: Any) -> bool:
    return (
        isinstance(key, str) and key.removeprefix("-").isascii() and key.removeprefix("-").isdigit()
    )
