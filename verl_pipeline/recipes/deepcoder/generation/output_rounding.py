"""Outputs that a right program may miss by a rounding error, because comparison is exact.

Invariant: a float of an accepted output has at most :data:`DIGITS` significant digits, so that the
last few of a double's 15 to 17 may differ on the way to it.
"""

import re
from typing import Any

DIGITS = 12
DECIMALS = 6
ROUNDING_NOTE = (
    f"Round every floating-point number of the result to {DECIMALS} decimals, as "
    f"`round(x, {DECIMALS})` does."
)
_DECIMAL = re.compile(r"\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+")
_ROUNDING = """

def _round_floats(value):
    if isinstance(value, float):
        return round(value, {decimals})
    if isinstance(value, dict):
        return {{key: _round_floats(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_round_floats(item) for item in value]
    return value

_solve_exactly = {name}

def {name}(*arguments, **named):
    return _round_floats(_solve_exactly(*arguments, **named))
"""


def is_sensitive_to_rounding(value: Any) -> bool:
    """Whether a value of JSON, or a text, has a float of too many significant digits."""
    if isinstance(value, str):
        return any(is_sensitive_to_rounding(float(text)) for text in _DECIMAL.findall(value))
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") != value
    if isinstance(value, dict):
        return any(map(is_sensitive_to_rounding, value.values()))
    if isinstance(value, list):
        return any(map(is_sensitive_to_rounding, value))
    return False


def write_rounding(name: str) -> str:
    """Return code that makes the function ``name``, defined before it, round what it returns."""
    return _ROUNDING.format(name=name, decimals=DECIMALS)
