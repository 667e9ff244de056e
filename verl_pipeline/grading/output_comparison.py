"""Decides whether an output equals the expected one. Pure functions of text or built-in values.

Invariants:
* No code of a candidate runs here: the exact type of every value is checked, and any type that is
  not built in is refused.
* No tolerance, order or number format is accepted unless the problem declares it.
* No function recurses into values, so their nesting may be arbitrarily deep.
* Time and memory are linear in the size of output and expected output, whatever the output is:
  nothing is searched for, no number is converted from digits to binary, and no hash that an output
  can foresee is relied on. An output is read only as far as it can still match: up to its first
  line or word too many.
"""

import math
from collections import Counter
from collections.abc import Callable
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any

from verl_pipeline.grading.number_text import parse_number, split_words, strip_space
from verl_pipeline.grading.problem import STRICT, Comparison
from verl_pipeline.grading.value_keys import (
    DICTS,
    SCALARS,
    SEQUENCES,
    SETS,
    ValueKeys,
    get_pairs,
    spell_scalar,
)

# Differences of decimals are exact, and never overflow.
_EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


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
    lines, expected_lines = (map(strip_space, text.split("\n")) for text in (output, expected))
    if comparison.rule == "any_order":
        return _has_same_lines(lines, expected_lines)
    is_same = (
        _make_tolerant_token_check(comparison) if comparison.rule == "tolerance" else _is_same_token
    )
    return all(
        _is_matching_line(*pair, is_same) for pair in zip(lines, expected_lines, strict=True)
    )


def _strip_text(text: str) -> str:
    return strip_space(text.replace("\r\n", "\n"))


def _is_matching_line(line: str, expected: str, is_same: Callable[[str, str], bool]) -> bool:
    if line == expected:
        return True
    expected_tokens = split_words(expected)
    # One token more than expected is enough to see that there are too many.
    tokens = split_words(line, len(expected_tokens))
    return len(tokens) == len(expected_tokens) and all(map(is_same, tokens, expected_tokens))


def _is_same_token(token: str, expected: str) -> bool:
    if token == expected:
        return True
    number = parse_number(expected)
    return number is not None and number == parse_number(token)


def _has_same_lines(lines: "map[str]", expected_lines: "map[str]") -> bool:
    """Compare as multisets; both have the same length."""
    missing = Counter(map(_make_line_key, expected_lines))
    longest = max(map(len, missing))
    for line in lines:
        # No more than one line of the output is in memory as tokens.
        key = _make_line_key(line, longest)
        if not missing[key]:
            return False
        missing[key] -= 1
    return True


def _make_line_key(line: str, max_splits: int = 0) -> tuple:
    # Numbers as text and exponent: the hash of a Decimal could be foreseen.
    return tuple(parse_number(token) or token for token in split_words(line, max_splits))


def _make_tolerant_token_check(comparison: Comparison) -> Callable[[str, str], bool]:
    # As the problem writes them: the binary 1e-6 is a little less than one millionth.
    absolute, relative = (Decimal(repr(x)) for x in (comparison.absolute, comparison.relative))

    def is_close_token(token: str, expected: str) -> bool:
        if token == expected:
            return True
        if parse_number(expected) is None or parse_number(token) is None:
            return False
        left, right = Decimal(token), Decimal(expected)
        difference = _EXACT.abs(_EXACT.subtract(left, right))
        largest = _EXACT.max_mag(left, right)
        tolerance = _EXACT.max(absolute, _EXACT.multiply(relative, _EXACT.abs(largest)))
        return difference <= tolerance

    return is_close_token


def is_matching_value(value: Any, expected: Any, comparison: Comparison = STRICT) -> bool:
    """Compare built-in values by Python's equality, except where JSON cannot tell them apart.

    A tuple matches a list, because JSON has no tuples. If all keys in ``expected`` are text, as
    JSON's are, a key that is None, a bool, an int or a float matches the text that JSON writes for
    it: ``1`` matches ``"1"``, ``True`` matches ``"true"``, ``None`` matches ``"null"``, ``1.5``
    matches ``"1.5"``. Each key matches one key only, so ``{1: 0, "1": 0}`` never matches
    ``{"1": 0}``. NaN matches NaN. ``tolerance`` applies to floats at any depth but in sets and
    keys, ``any_order`` to the outermost sequence only.

    ``value`` may contain the containers of :mod:`verl_pipeline.grading.returned_values`.
    """
    keys = ValueKeys(expected)
    if comparison.rule == "any_order" and type(value) in SEQUENCES and type(expected) in SEQUENCES:
        return len(value) == len(expected) and keys.have_same_members(value, expected)
    pairs = [(value, expected)]
    while pairs:
        left, right = pairs.pop()
        if type(left) in SEQUENCES and type(right) in SEQUENCES:
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif type(left) in DICTS and type(right) in DICTS:
            matched = _match_keys(left, right, keys)
            if matched is None:
                return False
            pairs.extend(matched)
        elif type(left) in SETS and type(right) in SETS:
            if len(left) != len(right) or not keys.have_same_members(left, right):
                return False
        elif (
            type(left) not in SCALARS
            or type(right) not in SCALARS
            or not _is_same_scalar(left, right, comparison)
        ):
            return False
    return True


def _match_keys(left: Any, right: Any, keys: ValueKeys) -> list[tuple[Any, Any]] | None:
    """Return pairs of the values of two dicts whose keys match, or None if a key has no match."""
    left_pairs, right_pairs = get_pairs(left), get_pairs(right)
    if len(left_pairs) != len(right_pairs):
        return None
    left_values, right_values = (
        dict(
            zip(
                keys.number_keys(key for key, _ in pairs),
                (value for _, value in pairs),
                strict=True,
            )
        )
        for pairs in (left_pairs, right_pairs)
    )
    if len(left_values) != len(left_pairs) or left_values.keys() != right_values.keys():
        return None
    return [(left_values[number], right_values[number]) for number in right_values]


def _is_same_scalar(left: Any, right: Any, comparison: Comparison) -> bool:
    if left == right:
        return True
    if type(left) in (float, complex) and spell_scalar(left) == spell_scalar(right):
        return True  # NaN
    if float not in (type(left), type(right)) or not {type(left), type(right)} <= {int, float}:
        return False
    try:
        return comparison.rule == "tolerance" and math.isclose(
            left, right, rel_tol=comparison.relative, abs_tol=comparison.absolute
        )
    except OverflowError:  # an int that is larger than any float
        return False
