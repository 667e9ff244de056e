"""Decides whether an output equals the expected one. Pure functions of text or built-in values.

Invariants:
* No code of a candidate runs here: the exact type of every value is checked, and any type that is
  not built in is refused.
* No tolerance, order or number format is accepted unless the problem declares it.
* No function recurses into values, so their nesting may be arbitrarily deep.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from verl_pipeline.grading.problem import STRICT, Comparison

# ASCII only, because Decimal also accepts underscores and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_SCALARS = (type(None), bool, int, float, complex, str, bytes, range)
# ASCII white space only, because str.split() also splits at look-alikes.
_SPACE = " \t\n\r\f\v"
_GAP = re.compile(f"[{_SPACE}]+")


def is_matching_text(output: str, expected: str, comparison: Comparison = STRICT) -> bool:
    """Compare texts by LiveCodeBench's rule: line by line, then token by token.

    White space around text and lines is ignored. Both texts must have the same number of lines.
    Tokens match if they are equal, or if they are equal numbers: equal exactly, as decimals, so
    0.5 matches 0.50, but 0.333 does not match 0.3333 (``lcb_runner``'s ``testing_util.py``). The
    other rules of ``comparison`` apply where the problem declares them.
    """
    output, expected = _strip_text(output), _strip_text(expected)
    # Checked before the split, which would make a list of millions of lines.
    if output.count("\n") != expected.count("\n"):
        return False
    output_lines, expected_lines = (
        [line.strip(_SPACE) for line in text.split("\n")] for text in (output, expected)
    )
    is_same = (
        _make_tolerant_token_check(comparison) if comparison.rule == "tolerance" else _is_same_token
    )
    if comparison.rule == "any_order":
        return Counter(map(_parse_line, output_lines)) == Counter(map(_parse_line, expected_lines))
    return all(
        _is_matching_line(*pair, is_same) for pair in zip(output_lines, expected_lines, strict=True)
    )


def _strip_text(text: str) -> str:
    return text.replace("\r\n", "\n").strip(_SPACE)


def _is_matching_line(line: str, expected: str, is_same: Callable[[str, str], bool]) -> bool:
    if line == expected:
        return True
    expected_tokens = _GAP.split(expected)
    # One token more than expected is enough to see that there are too many.
    tokens = _GAP.split(line, len(expected_tokens))
    return len(tokens) == len(expected_tokens) and all(map(is_same, tokens, expected_tokens))


def _is_same_token(token: str, expected: str) -> bool:
    return token == expected or _parse_token(token) == _parse_token(expected)


def _parse_token(token: str) -> str | Decimal:
    return Decimal(token) if _NUMBER.fullmatch(token) else token


def _parse_line(line: str) -> tuple[str | Decimal, ...]:
    return tuple(map(_parse_token, _GAP.split(line)))


def _make_tolerant_token_check(comparison: Comparison) -> Callable[[str, str], bool]:
    def is_close_token(token: str, expected: str) -> bool:
        if token == expected:
            return True
        if not (_NUMBER.fullmatch(token) and _NUMBER.fullmatch(expected)):
            return False
        return _is_within_tolerance(Decimal(token), Decimal(expected), comparison)

    return is_close_token


def _is_within_tolerance(number: Decimal, expected: Decimal, comparison: Comparison) -> bool:
    tolerance = max(
        Decimal(comparison.absolute),
        Decimal(comparison.relative) * max(abs(number), abs(expected)),
    )
    return abs(number - expected) <= tolerance


def is_matching_value(value: Any, expected: Any, comparison: Comparison = STRICT) -> bool:
    """Compare built-in values by Python's equality, except where JSON cannot tell them apart.

    A tuple matches a list, and an integer key its text, because JSON has neither tuples nor integer
    keys. NaN matches NaN. ``tolerance`` applies to floats at any depth, ``any_order`` to the
    outermost sequence only.
    """
    if comparison.rule == "any_order" and _is_sequence(value) and _is_sequence(expected):
        return _has_same_members(list(value), list(expected))
    pairs = [(value, expected)]
    while pairs:
        left, right = pairs.pop()
        if _is_sequence(left) and _is_sequence(right):
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif type(left) is dict and type(right) is dict:
            if left.keys() != right.keys():
                left = _convert_integer_keys(left)
            if left.keys() != right.keys():
                return False
            pairs.extend((left[key], right[key]) for key in right)
        elif _is_set(left) and _is_set(right):
            if left != right:
                return False
        elif (
            type(left) not in _SCALARS
            or type(right) not in _SCALARS
            or not _is_same_scalar(left, right, comparison)
        ):
            return False
    return True


def _convert_integer_keys(value: dict) -> dict:
    """Convert integer keys to text, as JSON did with the expected ones."""
    return (
        {str(key): item for key, item in value.items()}
        if all(type(key) is int for key in value)
        else value
    )


def _is_sequence(value: Any) -> bool:
    return type(value) in (list, tuple)


def _is_set(value: Any) -> bool:
    return type(value) in (set, frozenset)


def _is_same_scalar(left: Any, right: Any, comparison: Comparison) -> bool:
    if left == right:
        return True
    if float not in (type(left), type(right)) or not {type(left), type(right)} <= {int, float}:
        return False
    try:
        if math.isnan(left) and math.isnan(right):
            return True
        return comparison.rule == "tolerance" and math.isclose(
            left, right, rel_tol=comparison.relative, abs_tol=comparison.absolute
        )
    except OverflowError:  # an int that is larger than any float
        return False


def _has_same_members(values: list, expected: list) -> bool:
    """Compare as multisets by :func:`is_matching_value`; members may be unhashable."""
    if len(values) != len(expected):
        return False
    remaining = list(expected)
    for member in values:
        position = next(
            (index for index, other in enumerate(remaining) if is_matching_value(member, other)),
            None,
        )
        if position is None:
            return False
        del remaining[position]
    return True
