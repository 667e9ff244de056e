"""Splits text into words and reads decimal numbers, in time linear in the text.

Invariants:
* Only ASCII white space separates, and only ASCII digits are digits: ``str.split`` and ``Decimal``
  also take look-alikes, and ``Decimal`` takes underscores.
* A number stays text: nothing is rounded, and no conversion to binary takes quadratic time.
"""

import re

_SPACE = " \t\n\r\f\v"
_GAP = re.compile(f"[{_SPACE}]+")
MAX_EXPONENT_DIGITS = 4


def strip_space(text: str) -> str:
    return text.strip(_SPACE)


def split_words(line: str, max_splits: int = 0) -> list[str]:
    """Split a stripped line; after ``max_splits`` (0: no limit), the rest is one word."""
    return _GAP.split(line, max_splits)


def parse_number(token: str) -> tuple[bool, str, int] | None:
    """Return a decimal number as sign, significant digits and power of ten; None if it is none.

    Equal numbers, such as ``0.5`` and ``+50e-2``, give equal results. An exponent has at most
    :data:`MAX_EXPONENT_DIGITS` digits.
    """
    mantissa, mark, exponent = token.replace("E", "e").partition("e")
    if mark and not _is_exponent(exponent):
        return None
    is_negative = mantissa.startswith("-")
    whole, _, fraction = mantissa[mantissa[:1] in ("+", "-") :].partition(".")
    digits = whole + fraction
    if not _is_digits(digits):
        return None
    without_zeros = digits.rstrip("0")
    significant = without_zeros.lstrip("0")
    if not significant:
        return False, "", 0
    power = int(exponent or 0) - len(fraction) + len(digits) - len(without_zeros)
    return is_negative, significant, power


def _is_exponent(text: str) -> bool:
    digits = text[text[:1] in ("+", "-") :]
    return len(digits) <= MAX_EXPONENT_DIGITS and _is_digits(digits)


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
