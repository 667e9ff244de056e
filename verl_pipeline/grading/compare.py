"""Whether an output is the expected one. Pure: text or exact built-in values in, a bool out.

Invariants:
* No code of a candidate runs here: values of any other type than the built-in ones are refused, by
  exact type.
* No tolerance, order or number format is forgiven that the problem does not declare.
* Nothing recurses: a value may be as deep as it likes.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from verl_pipeline.grading.problem import STRICT, Comparison

# ASCII only: Decimal also takes digits of other scripts and underscores.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_SCALARS = (type(None), bool, int, float, complex, str, bytes, range)
# ASCII white space: str.split() would also split at look-alikes.
_SPACE = " \t\n\r\f\v"
_GAP = re.compile(f"[{_SPACE}]+")


def text_matches(output: str, expected: str, comparison: Comparison = STRICT) -> bool:
    """LiveCodeBench's rule: surrounding space aside, as many lines; each equal, or its tokens equal
    or equal numbers.

    "Equal numbers" are equal exactly, as decimals: 0.5 and 0.50, not 0.333 and 0.3333
    (``lcb_runner``'s ``testing_util.py``). The other rules of ``comparison`` are applied where
    declared.
    """
    output, expected = _stripped(output), _stripped(expected)
    if output.count("\n") != expected.count("\n"):  # before a list of millions of lines is made
        return False
    found, wanted = (
        [line.strip(_SPACE) for line in text.split("\n")] for text in (output, expected)
    )
    same = _close_tokens(comparison) if comparison.rule == "tolerance" else _same_token
    if comparison.rule == "any_order":
        return Counter(map(_canonical_line, found)) == Counter(map(_canonical_line, wanted))
    return all(_line_matches(*pair, same) for pair in zip(found, wanted, strict=True))


def _stripped(text: str) -> str:
    return text.replace("\r\n", "\n").strip(_SPACE)


def _line_matches(found: str, wanted: str, same: Callable[[str, str], bool]) -> bool:
    if found == wanted:
        return True
    right = _GAP.split(wanted)
    left = _GAP.split(found, len(right))  # one more than needed tells them apart
    return len(left) == len(right) and all(map(same, left, right))


def _same_token(found: str, wanted: str) -> bool:
    return found == wanted or _canonical(found) == _canonical(wanted)


def _canonical(token: str) -> str | Decimal:
    return Decimal(token) if _NUMBER.fullmatch(token) else token


def _canonical_line(line: str) -> tuple[str | Decimal, ...]:
    return tuple(map(_canonical, _GAP.split(line)))


def _close_tokens(comparison: Comparison) -> Callable[[str, str], bool]:
    def same(found: str, wanted: str) -> bool:
        if found == wanted:
            return True
        if not (_NUMBER.fullmatch(found) and _NUMBER.fullmatch(wanted)):
            return False
        return _close(Decimal(found), Decimal(wanted), comparison)

    return same


def _close(found: Decimal, wanted: Decimal, comparison: Comparison) -> bool:
    allowed = max(
        Decimal(comparison.absolute), Decimal(comparison.relative) * max(abs(found), abs(wanted))
    )
    return abs(found - wanted) <= allowed


def value_matches(found: Any, wanted: Any, comparison: Comparison = STRICT) -> bool:
    """Python's equality of built-in values; a tuple is as good as a list, and an integer key as its
    text, because JSON knows no others; NaN equals NaN.

    ``tolerance`` holds for floats, at any depth; ``any_order`` for the outermost sequence.
    """
    if comparison.rule == "any_order" and _is_sequence(found) and _is_sequence(wanted):
        return _same_members(list(found), list(wanted))
    pairs = [(found, wanted)]
    while pairs:
        left, right = pairs.pop()
        if _is_sequence(left) and _is_sequence(right):
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif type(left) is dict and type(right) is dict:
            if left.keys() != right.keys():
                left = _text_keys(left)
            if left.keys() != right.keys():
                return False
            pairs.extend((left[key], right[key]) for key in right)
        elif _is_set(left) and _is_set(right):
            if left != right:
                return False
        elif (
            type(left) not in _SCALARS
            or type(right) not in _SCALARS
            or not _same_scalar(left, right, comparison)
        ):
            return False
    return True


def _text_keys(value: dict) -> dict:
    """Integer keys as JSON has written the expected ones."""
    return (
        {str(key): item for key, item in value.items()}
        if all(type(key) is int for key in value)
        else value
    )


def _is_sequence(value: Any) -> bool:
    return type(value) in (list, tuple)


def _is_set(value: Any) -> bool:
    return type(value) in (set, frozenset)


def _same_scalar(left: Any, right: Any, comparison: Comparison) -> bool:
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
    except OverflowError:  # an int beyond all floats
        return False


def _same_members(found: list, wanted: list) -> bool:
    """Multisets under :func:`value_matches`; members need not be hashable."""
    if len(found) != len(wanted):
        return False
    rest = list(wanted)
    for member in found:
        place = next(
            (index for index, other in enumerate(rest) if value_matches(member, other)), None
        )
        if place is None:
            return False
        del rest[place]
    return True
