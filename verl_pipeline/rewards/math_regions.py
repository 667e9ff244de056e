"""Compares sets of numbers that are written in different ways: as sets, and by inequalities.

Invariants:
* An inequality is the set of a symbol's values only if it bounds the symbol itself by numbers: to
  accept ``x^2 < 4`` where ``(-2, 2)`` is expected would accept the question as the answer.
* A set in braces is no interval, and no point.
"""

from typing import Any

from sympy import And, Eq, FiniteSet, Intersection, Interval, Or, Set, Symbol, Tuple, Union
from sympy.core.relational import Relational

from verl_pipeline.rewards.math_parsing import ParsedAnswer


def are_same_regions(expected: Any, answer: Any) -> bool:
    """Whether both are sets of real numbers, at least one of them by inequalities, and equal."""
    first, second = _make_region(expected), _make_region(answer)
    if first is None or second is None:
        return False
    (name, region), (other_name, other_region) = first, second
    if name is None and other_name is None:
        return False
    return bool(region == other_region and (None in (name, other_name) or name == other_name))


def differ_in_kind(expected: ParsedAnswer, answer: ParsedAnswer) -> bool:
    """Whether one is a set of several elements in braces, and the other an interval or a point."""
    for one, other in ((expected, answer), (answer, expected)):
        if one.has_braces and isinstance(one.value, FiniteSet) and len(one.value) > 1:
            if isinstance(other.value, Interval | Tuple):
                return True
    return False


def _make_region(value: Any) -> tuple[str | None, Set] | None:
    """Return the symbol that a value bounds, if it names one, and the set of its values."""
    if isinstance(value, Eq) and isinstance(value.lhs, Symbol) and isinstance(value.rhs, Set):
        return value.lhs.name, value.rhs
    if isinstance(value, Interval | Union):
        return None, value
    # A list of inequalities names alternatives.
    is_list = isinstance(value, FiniteSet | Or)
    parts = value.args if is_list or isinstance(value, And) else (value,)
    if is_list and any(not isinstance(part, Relational | And) for part in parts):
        return None
    bounds = [
        bound for part in parts for bound in (part.args if isinstance(part, And) else (part,))
    ]
    symbols = {_find_bounded_symbol(bound) for bound in bounds}
    symbol = symbols.pop() if len(symbols) == 1 else None
    if symbol is None:
        return None
    regions = [part.as_set() for part in parts]
    region = Union(*regions) if is_list else Intersection(*regions)
    return symbol.name, region


def _find_bounded_symbol(bound: Any) -> Symbol | None:
    if not isinstance(bound, Relational) or isinstance(bound, Eq):
        return None
    for side, other in ((bound.lhs, bound.rhs), (bound.rhs, bound.lhs)):
        if isinstance(side, Symbol) and not other.free_symbols and other.is_extended_real:
            return side
    return None
