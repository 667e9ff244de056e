"""Encodes values that cross between a program and its judge: exact built-in types, as flat JSON.

Both sides load this file: the judge as part of the package, the jail by itself. It therefore
imports the standard library only.

A value is a list of its parts in preorder. A scalar is itself, or a pair of tag and content where
JSON has no type for it. A container is a pair of tag and length, followed by its members (of a
dict: key, value, key, value ...).

Invariants:
* :func:`decode_value` constructs only None, bool, int, float, complex, str, bytes, range, list,
  tuple, set, frozenset, dict, their types and, where the caller allows them, plain records and
  references; it calls no method of a constructed object.
* No function recurses: a value may be nested arbitrarily deep, up to the limits below. Only hashed
  values (members of sets, keys of dicts) must be shallow, because Python's hashing recurses.
* Only a jail hashes what a program sent: members of equal hashes take quadratic time, and no limit
  could tell hostile ones from right ones. The judge passes its own ``make_container``.
"""

import json
from base64 import b64decode, b64encode

MAX_PARTS = 1_000_000
# Levels of tuples and frozensets in a member of a set or a key.
MAX_HASHED_DEPTH = 100
# Of a value as text; its parts may take ten times as much memory.
MAX_CHARACTERS = 16 << 20
_TAGS = {list: "l", tuple: "t", set: "s", frozenset: "f", dict: "d"}
# Types that are values themselves: an argument such as ``int``.
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
BASE_TYPES = (bool, int, float, str, bytes, list, tuple, set, frozenset, dict)


class ValueRefused(ValueError):
    """A value may not cross: it is too large, malformed, or of another type."""


class OpaqueValue:
    """Stands for a value that does not cross: true, as most objects are, and equal to nothing."""


def encode_value(value, record_names=(), get_reference=None, opaque=False):
    """Return ``value`` as JSON text.

    Instances of subclasses (a ``defaultdict``, an ``IntEnum``, a named tuple) cross as their
    built-in base, and numpy's scalars as Python's; instances of classes in ``record_names`` as
    their attributes; objects for which ``get_reference(object)`` is not None as that reference (any
    JSON). With ``opaque``, all other objects cross as :class:`OpaqueValue`.

    Raises:
        ValueRefused: the value has another type, or more than :data:`MAX_PARTS` parts.
    """
    parts = []
    remaining = [value]
    while remaining:
        item = remaining.pop()
        kind = type(item)
        if item is None or kind is bool or kind is str:
            parts.append(item)
        elif kind is int:
            # JSON parsers may read larger integers as floats; hex avoids Python's digit limit.
            parts.append(item if -(2**53) < item < 2**53 else ["i", hex(item)])
        elif kind is float:
            parts.append(["x", item.hex()])
        elif kind is bytes:
            parts.append(["b", b64encode(item).decode()])
        elif kind is complex:
            parts.append(["c", [item.real.hex(), item.imag.hex()]])
        elif kind is range:
            parts.append(["q", [item.start, item.stop, item.step]])
        elif kind is type and _TYPES.get(item.__name__) is item:
            parts.append(["y", item.__name__])
        elif kind is dict:
            parts.append(["d", len(item)])
            for pair in reversed(item.items()):
                remaining += (pair[1], pair[0])
        elif kind in _TAGS:
            parts.append([_TAGS[kind], len(item)])
            remaining += reversed(list(item))
        elif kind.__name__ in record_names:
            parts.append(["r", kind.__name__])
            remaining.append(dict(vars(item)))
        elif get_reference is not None and (reference := get_reference(item)) is not None:
            parts.append(["n", reference])
        elif (builtin := _convert_to_builtin(item, kind)) is not item:
            remaining.append(builtin)
        elif opaque:
            parts.append(["o", None])
        else:
            raise ValueRefused(f"a value of type {kind.__module__}.{kind.__qualname__}")
        if len(parts) + len(remaining) > MAX_PARTS:
            raise ValueRefused(f"a value of more than {MAX_PARTS} parts")
    return json.dumps(parts)


def _convert_to_builtin(item, kind):
    """Return ``item`` as its built-in base; ``item`` itself if it has none that crosses."""
    for base in BASE_TYPES:
        if isinstance(item, base):
            # The base's own methods are called: an overridden one could run for ever.
            return (
                dict(dict.items(item))
                if base is dict
                else base.__new__(base, _get_base_value(item, base))
            )
    if kind.__module__ == "numpy" and hasattr(item, "item") and not getattr(item, "ndim", 1):
        return item.item()
    return item


def _get_base_value(item, base):
    if base is int:
        return int.__index__(item)
    if base is float:
        return float.__float__(item)
    if base is str:
        return str.__str__(item)
    if base is bytes:
        return bytes.__getitem__(item, slice(None))
    return base.__iter__(item)


def join_values(texts):
    """Return the text of the tuple of values whose texts are ``texts``; parses none of them.

    Raises:
        ValueRefused: a text is empty or has several lines, each of which would be a value.
    """
    texts = [text.strip() for text in texts]
    if any(len(text.splitlines()) != 1 for text in texts):
        raise ValueRefused("a value that is not one line")
    return f'[["t", {len(texts)}], {", ".join(text[1:-1] for text in texts)}]'


def decode_value(
    text, records=None, resolve_reference=None, make_container=None, max_characters=None
):
    """Return the value that :func:`encode_value` wrote, as exact built-in types.

    Args:
        records: classes by name, whose instances were encoded as attributes.
        resolve_reference: returns the object for a reference.
        make_container: called with tag, members and their depth instead of making a list, tuple,
            set, frozenset or dict.
        max_characters: of ``text``, instead of :data:`MAX_CHARACTERS` and :data:`MAX_PARTS`.

    Raises:
        ValueRefused: the text is not what :func:`encode_value` writes.
    """
    max_parts = MAX_PARTS if max_characters is None else max_characters
    max_characters = MAX_CHARACTERS if max_characters is None else max_characters
    if len(text) > max_characters:
        raise ValueRefused(f"a value of more than {max_characters} characters")
    try:
        parts = json.loads(text, object_pairs_hook=_refuse_object)
        if type(parts) is not list or not 0 < len(parts) <= max_parts:
            raise ValueRefused("not a list of parts")
        return _build_value(
            parts, records or {}, resolve_reference, make_container or _make_container
        )
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise ValueRefused(f"malformed: {error}") from None


def _refuse_object(_pairs):
    raise ValueRefused("an object")


def _build_value(parts, records, resolve_reference, make_container):
    """Build from the last part to the first: members are complete before their container is."""
    stack = []
    levels = []  # depth of tuples and frozensets in each value of the stack
    for part in reversed(parts):
        level = 0
        if part is None or type(part) in (bool, int, str):
            value = part
        else:
            tag, content = part
            if tag == "i":
                value = int(content, 16)
            elif tag == "x":
                value = float.fromhex(content)
            elif tag == "b":
                value = b64decode(content, validate=True)
            elif tag == "c":
                value = complex(*map(float.fromhex, content))
            elif tag == "q":
                value = range(*content)
            elif tag == "y":
                value = _TYPES[content]
            elif tag == "r":
                value = _make_record(records[content], stack.pop())
                levels.pop()
            elif tag == "o":
                value = OpaqueValue()
            elif tag == "n":
                value = resolve_reference(content)
            else:
                members, deepest = _pop_members(tag, content, stack, levels)
                value, level = make_container(tag, members, deepest), deepest + 1
        stack.append(value)
        levels.append(level)
    if len(stack) != 1:
        raise ValueRefused(f"{len(stack)} values instead of one")
    return stack[0]


def _pop_members(tag, length, stack, levels):
    """Take a container's members off the stack; return them and the level of the deepest."""
    if type(length) is not int or length < 0:
        raise ValueRefused("a bad length")
    count = 2 * length if tag == "d" else length
    if count > len(stack):
        raise ValueRefused("members are missing")
    start = len(stack) - count
    members, deepest = stack[start:][::-1], max(levels[start:], default=0)
    del stack[start:], levels[start:]
    return members, deepest


def _make_container(tag, members, deepest):
    if tag in ("l", "t"):
        return members if tag == "l" else tuple(members)
    if deepest > MAX_HASHED_DEPTH:
        raise ValueRefused(f"a set or dict of members more than {MAX_HASHED_DEPTH} levels deep")
    if tag == "d":
        return dict(zip(members[::2], members[1::2], strict=True))
    return {"s": set, "f": frozenset}[tag](members)


def _make_record(record_class, attributes):
    if type(attributes) is not dict:
        raise ValueRefused("attributes that are not a dict")
    record = object.__new__(record_class)
    vars(record).update(attributes)
    return record
