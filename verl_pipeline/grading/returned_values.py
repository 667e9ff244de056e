"""Decodes what a function returned, for comparison with the expected value.

Invariants:
* No member of a set and no key of a dict is hashed: a program can return members whose hashes are
  equal and whose comparison is slow, and Python would compare each with each.
* What is far longer than the expected value is refused before it is parsed.
"""

from typing import Any

from verl_pipeline.sandbox.inside.value_codec import ValueRefused, decode_value, encode_value

# A value that matches has at most 16 times as many characters as the expected one: the longest for
# `1, ` is `["c", ["0x1.0000000000000p+0", "-0x0.0p+0"]], `, the complex number 1.
MAX_RATIO, ROOM_BYTES = 32, 1 << 20


class ReturnedSet(list):
    """The members of a set or frozenset; a program that encodes by itself may repeat some."""


class ReturnedDict(list):
    """The keys and values of a dict: key, value, key, value ...; keys may be repeated as above."""


def decode_returned_value(result: bytes, expected: Any) -> Any:
    """Return the value, with :class:`ReturnedSet` and :class:`ReturnedDict` in it.

    Raises:
        ValueRefused: it is malformed, or longer than :data:`MAX_RATIO` times the expected value
            and :data:`ROOM_BYTES`; no value that matches is.
    """
    length = len(result)
    if length > ROOM_BYTES and length > ROOM_BYTES + MAX_RATIO * len(encode_value(expected)):
        raise ValueRefused(f"{length} bytes, far more than the expected value has")
    text = result.decode(errors="replace")
    return decode_value(text, make_container=_make_container, max_characters=length)


def _make_container(tag: str, members: list, _deepest: int) -> Any:
    if tag in ("l", "t"):
        return members
    return {"s": ReturnedSet, "f": ReturnedSet, "d": ReturnedDict}[tag](members)
