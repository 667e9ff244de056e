"""How numbers are shown to people: rounded once, by one rule, in every output.

The rule: round half away from zero, in decimal, the shortest decimal that denotes the number. So
6.25 % is 6.3 %, as a reader who rounds by hand expects; Python's and JavaScript's own formatting
disagree here.

Invariants:
* Only texts for people are rounded; JSON files have the numbers as they are.
* A number that rounds to zero has no minus.
"""

import decimal
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

# More digits than a float has, before and after the point.
_CONTEXT = decimal.Context(prec=700, rounding=decimal.ROUND_HALF_UP)


def format_decimal(
    value: float, digits: int = 1, *, sign: bool = False, group: bool = False
) -> str:
    """Return ``value`` with ``digits`` digits after the point.

    Args:
        sign: whether positive numbers, and zero, have a plus.
        group: whether thousands are separated by commas.
    """
    return _format(_read_exactly(value), digits, sign, group)


def format_interval(
    value: float, low: float | None, high: float | None, digits: int = 1, *, sign: bool = False
) -> str:
    """Return an estimate with its bounds, as ``1.37 [1.01, 1.85]``; no bounds if they are None."""
    text = format_decimal(value, digits, sign=sign)
    if low is None or high is None:
        return text
    bounds = (format_decimal(bound, digits, sign=sign) for bound in (low, high))
    return f"{text} [{', '.join(bounds)}]"


def format_percent(share: float, digits: int = 1) -> str:
    """Return a share as ``6.3 %``."""
    return f"{_format(_read_exactly(share).scaleb(2, _CONTEXT), digits)} %"


def format_points(difference: float, digits: int = 1) -> str:
    """Return a difference of shares in percentage points, as ``+6.3``."""
    return _format(_read_exactly(difference).scaleb(2, _CONTEXT), digits, sign=True)


def format_score(interval: Mapping[str, Any] | None) -> str:
    """Return an estimate of a share with its bounds, as ``12.3 % [10.1, 14.9]``.

    Returns:
        ``-`` for None; no bounds if the estimate has none.
    """
    if interval is None:
        return "-"
    text = format_percent(interval["value"])
    if interval["low"] is None:
        return text
    low, high = (format_percent(interval[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


def format_gain(interval: Mapping[str, Any]) -> str:
    """Return a difference of shares with its bounds, as ``+2.1 [-0.4, +4.6] points``."""
    text = format_points(interval["value"])
    if interval["low"] is not None:
        text += f" [{format_points(interval['low'])}, {format_points(interval['high'])}]"
    return f"{text} points"


def to_percent(share: float) -> float:
    """Return a share in percent, not rounded, for files that others read."""
    return float(_read_exactly(share).scaleb(2, _CONTEXT))


def _read_exactly(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _format(exact: Decimal, digits: int, sign: bool = False, group: bool = False) -> str:
    if not exact.is_finite():
        return format(float(exact), "f")
    rounded = exact.quantize(Decimal(1).scaleb(-digits), context=_CONTEXT)
    if rounded == 0:
        rounded = abs(rounded)
    return format(rounded, f"{'+' if sign else ''}{',' if group else ''}f")
