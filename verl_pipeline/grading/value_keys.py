"""Numbers for built-in values: equal values get equal numbers, so that they can be counted.

Python's own hashes would do that too, but not for lists, and equal hashes of different values are
easy to make (``hash(-1) == hash(-2)``): sets of them take quadratic time. Here values are spelled
as text, whose hash has a secret seed in each process.

Invariants:
* Two values have the same number if and only if
  :func:`~verl_pipeline.grading.output_comparison.is_matching_value` says that they match.
* Time and memory are linear in the size of the values, up to the sorting of sets and dicts; nothing
  recurses; no value is hashed or compared by a method of its own.
"""

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from verl_pipeline.grading.returned_values import ReturnedDict, ReturnedSet

SCALARS = (type(None), bool, int, float, complex, str, bytes, range)
SEQUENCES = (list, tuple)
SETS = (set, frozenset, ReturnedSet)
DICTS = (dict, ReturnedDict)
_CONTAINERS = (*SEQUENCES, *SETS, *DICTS)
# Scalars that JSON turns into text where they are keys.
_JSON_KEYS = (type(None), bool, int, float)


class ValueKeys:
    """Numbers values while one value is compared with an expected one.

    Args:
        expected: the expected value: if all keys in it are text, keys are compared as JSON's.
    """

    def __init__(self, expected: Any):
        self._expected = expected
        self._numbers: dict[str, int] = {}
        self._unknown = itertools.count(-1, -1)

    def have_same_members(self, left: Iterable[Any], right: Iterable[Any]) -> bool:
        """Whether two collections have the same members equally often, in any order."""
        return Counter(self.number_values(left)) == Counter(self.number_values(right))

    def number_keys(self, keys: Iterable[Any]) -> list[int]:
        """Return a number for each of the keys of a dict."""
        return self.number_values(map(self._convert_key, keys))

    def number_values(self, values: Iterable[Any]) -> list[int]:
        """Return a number for each of ``values``; values of other types get one of their own."""
        stack: list[int] = []
        # From the last part to the first: the members of a container come before it.
        for part in reversed(list(self._walk(values))):
            start = len(stack) - _count_members(part)
            spelled = _spell_part(part, stack[start:][::-1])
            del stack[start:]
            if spelled is None:
                stack.append(next(self._unknown))
            else:
                stack.append(self._numbers.setdefault(spelled, len(self._numbers)))
        return stack[::-1]

    def _walk(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield all parts of ``values``, each container before its members."""
        remaining = list(values)[::-1]
        while remaining:
            part = remaining.pop()
            yield part
            if type(part) in DICTS:
                for key, value in reversed(get_pairs(part)):
                    remaining += (value, self._convert_key(key))
            elif type(part) in _CONTAINERS:
                remaining += list(part)[::-1]

    def _convert_key(self, key: Any) -> Any:
        """Return a key as JSON writes it, if the expected keys may come from JSON."""
        if type(key) not in _JSON_KEYS or not self._has_text_keys_only:
            return key
        try:
            return json.dumps(key)
        except ValueError:  # more digits than Python converts
            return key

    @functools.cached_property
    def _has_text_keys_only(self) -> bool:
        remaining = [self._expected]
        while remaining:
            part = remaining.pop()
            if type(part) in DICTS:
                pairs = get_pairs(part)
                if any(type(key) is not str for key, _ in pairs):
                    return False
                remaining += (value for _, value in pairs)
            elif type(part) in SEQUENCES:
                remaining += part
        return True


def get_pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return the keys and values of a dict, or of a :class:`ReturnedDict`."""
    if type(value) is dict:
        return list(value.items())
    return list(zip(value[::2], value[1::2], strict=True))


def _count_members(part: Any) -> int:
    """Return how many parts a container has; a dict: its keys and its values."""
    if type(part) is dict:
        return 2 * len(part)
    return len(part) if type(part) in _CONTAINERS else 0


def _spell_part(part: Any, members: list[int]) -> str | None:
    """Spell a part by its value or the numbers of its members; None if it is of another type."""
    if type(part) in SEQUENCES:
        return f"[{members}"
    if type(part) in SETS:
        return f"{{{sorted(members)}"
    if type(part) in DICTS:
        return f":{sorted(zip(members[::2], members[1::2], strict=True))}"
    return spell_scalar(part)


def spell_scalar(value: Any) -> str | None:
    """Spell a scalar such that equal ones are spelled alike; None for any other type."""
    kind = type(value)
    if kind in (bool, int, float):
        return f"#{_spell_real(value)}"
    if kind is complex:
        imaginary = "" if value.imag == 0 else f" {_spell_real(value.imag)}"
        return f"#{_spell_real(value.real)}{imaginary}"
    if kind is str:
        return f'"{value}'
    if kind is bytes:
        return f"b{value.decode('latin-1')}"
    if kind is range:
        return f"r{_spell_range(value)}"
    return "None" if value is None else None


def _spell_real(value: float) -> str:
    if type(value) is float and not (math.isfinite(value) and value.is_integer()):
        return value.hex()
    return hex(int(value))  # unlike decimal digits, of any length in linear time


def _spell_range(value: range) -> str:
    """Spell what a range contains; it may contain more than ``len`` can count."""
    if not value:
        return ""
    first, last = hex(value[0]), hex(value[-1])
    return first if first == last else f"{first} {last} {value.step:x}"
