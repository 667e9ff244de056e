"""Decodes what a function returned, for comparison with the expected value.

Invariants:
* No member of a set and no key of a dict is hashed: a program can return members whose hashes are
  equal and whose comparison is slow, and Python would compare each with each.
* What is far longer than the expected value is refused before it is parsed.
"""

import itertools
from typing import Any

from verl_pipeline.sandbox.inside.value_codec import ValueRefused, decode_value

# Results up to this length are always parsed.
ROOM_BYTES = 1 << 20
# Of a part: brackets and a tag; the longest of an integer's types, complex; and an integer that
# equals a float, which has at most 256 hexadecimal digits.
_PART_BYTES = 320
# A character outside of the Basic Multilingual Plane takes two escapes of JSON.
_CHARACTER_BYTES = 12


class ReturnedSet(list):
    """The members of a set or frozenset; a program that encodes by itself may repeat some."""


class ReturnedDict(list):
    """The keys and values of a dict: key, value, key, value ...; keys may be repeated as above."""


def decode_returned_value(result: bytes, expected: Any) -> Any:
    """Return the value, with :class:`ReturnedSet` and :class:`ReturnedDict` in it.

    Raises:
        ValueRefused: it is malformed, or longer than :data:`ROOM_BYTES` and than any value that
            matches the expected one.
    """
    length = len(result)
    if length > ROOM_BYTES and length > ROOM_BYTES + _bound_length(expected):
        raise ValueRefused(f"{length} bytes, far more than the expected value has")
    text = result.decode(errors="replace")
    return decode_value(text, make_container=_make_container, max_characters=length)


def _bound_length(expected: Any) -> int:
    """Return a length that no value exceeds that matches ``expected``, whatever its types are."""
    total = 0
    remaining = [expected]
    while remaining:
        part = remaining.pop()
        total += _PART_BYTES
        if type(part) is dict:
            remaining += itertools.chain(part, part.values())
        elif type(part) in (list, tuple, set, frozenset):
            remaining += part
        elif type(part) in (str, bytes):
            total += _CHARACTER_BYTES * len(part)
        elif type(part) is int:
            total += part.bit_length()
    return total


def _make_container(tag: str, members: list, _deepest: int) -> Any:
    if tag in ("l", "t"):
        return members
    return {"s": ReturnedSet, "f": ReturnedSet, "d": ReturnedDict}[tag](members)
