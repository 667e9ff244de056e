"""Encodes values that cross between a program and its judge: exact built-in types, as flat JSON.

Both sides load this file: the judge as part of the package, the jail by itself. It therefore
imports the standard library only.

A value is a list of its parts in preorder. A scalar is itself, or a pair of tag and content where
JSON has no type for it. A container is a pair of tag and length, followed by its members (of a
dict: key, value, key, value ...), or, if all members are JSON's own scalars, of tag and members,
because large answers are mostly such lists. Many rows of few texts are a table of these texts and
a character for each. A part of three (tag, content, number of members) is for the caller's
``build_item``.

Invariants:
* :func:`decode_value` constructs only None, bool, int, float, complex, str, bytes, range, list,
  tuple, set, frozenset, dict, their types, and what ``build_item`` returns; it calls no method of
  a constructed object.
* No function recurses: a value may be nested arbitrarily deep. Only hashed values (members of sets,
  keys of dicts) must be shallow, because Python's hashing recurses.
* Only a jail hashes what a program sent: members of equal hashes take quadratic time, and no limit
  could tell hostile ones from right ones. The judge passes its own ``make_container``.
* Neither side believes the other's sizes: who decodes says how long a text may be.
"""

import json
from base64 import b64decode, b64encode

# Levels of tuples and frozensets in a member of a set or a key.
MAX_HASHED_DEPTH = 100
# Of a value as text, unless the caller knows what to expect; its parts may take ten times as much
# memory.
MAX_CHARACTERS = 64 << 20
# Of JSON's own; json reads and writes floats exactly.
_SCALARS = {type(None), bool, int, float, str}
# Larger integers are written as hex, which has no limit of digits and takes linear time.
_MAX_PLAIN_INT = 1 << 200
_TAGS = {list: "l", tuple: "t", set: "s", frozenset: "f", dict: "d"}
# Characters for texts of a table: those that JSON does not escape.
_SYMBOLS = [chr(code) for code in range(ord("#"), ord("~")) if chr(code) != "\\"]
# Shorter lists are not worth a table.
_MIN_ROWS = 1000
# Types that are values themselves: an argument such as ``int``.
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
} | {"NoneType": type(None)}
BASE_TYPES = (bool, int, float, str, bytes, list, tuple, set, frozenset, dict)


class ValueRefused(ValueError):
    """A value may not cross: it is too large, malformed, or of another type."""


def encode_value(value, export_item=None):
    """Return ``value`` as JSON text.

    Instances of subclasses (a ``defaultdict``, an ``IntEnum``, a named tuple) cross as their
    built-in base, and numpy's scalars as Python's. Before that, ``export_item(object)`` may return
    another form of an object that is not of an exact built-in type: ``(tag, content, members)``.

    Raises:
        ValueRefused: the value has another type.
    """
    parts = []
    remaining = [value]
    while remaining:
        item = remaining.pop()
        kind = type(item)
        if kind is int:
            is_plain = -_MAX_PLAIN_INT < item < _MAX_PLAIN_INT
            parts.append(item if is_plain else ["i", hex(item)])
        elif kind in _SCALARS:
            parts.append(item)
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
        elif kind in _TAGS and _has_plain_members(item):
            parts.append([_TAGS[kind], list(item)])
        elif (kind is list or kind is tuple) and (rows := _encode_rows(item)) is not None:
            parts.append(["w", [_TAGS[kind], *rows]])
        elif kind in _TAGS:
            parts.append([_TAGS[kind], len(item)])
            remaining += reversed(list(item))
        elif export_item is not None and (exported := export_item(item)) is not None:
            tag, content, members = exported
            parts.append([tag, content, len(members)])
            remaining += reversed(members)
        elif (builtin := _convert_to_builtin(item, kind)) is not item:
            remaining.append(builtin)
        else:
            raise ValueRefused(f"a value of type {kind.__module__}.{kind.__qualname__}")
    return json.dumps(parts)


def _has_plain_members(container):
    kinds = set(map(type, container))
    if int not in kinds:
        return kinds <= _SCALARS
    return kinds == {int} and -_MAX_PLAIN_INT < min(container) <= max(container) < _MAX_PLAIN_INT


def _encode_rows(container):
    """Return tag, texts and rows of many rows of few texts, or None if the container has others."""
    kind = type(container[0]) if len(container) >= _MIN_ROWS else None
    if kind is not list and kind is not tuple:
        return None
    symbols, rows = {}, []
    for row in container:
        if type(row) is not kind:
            return None
        try:
            rows.append("".join(map(symbols.__getitem__, row)))
        except (KeyError, TypeError):
            for text in row:
                if type(text) is not str or len(symbols) == len(_SYMBOLS):
                    return None
                symbols.setdefault(text, _SYMBOLS[len(symbols)])
            rows.append("".join(map(symbols.__getitem__, row)))
    return [_TAGS[kind], list(symbols), rows]


def _decode_rows(tag, texts, rows):
    kind = {"l": list, "t": tuple}[tag]
    if not {str}.issuperset(map(type, (*texts, *rows))):
        raise ValueRefused("a row that is no text")
    find_text = dict(zip(_SYMBOLS, texts, strict=False)).__getitem__
    return [kind(map(find_text, row)) for row in rows]


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
        converted = item.item()
        if type(converted) is kind:  # a longdouble or clongdouble: rounded, as JSON has no other
            converted = complex(item) if kind.__name__ == "clongdouble" else float(item)
        return converted
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


def decode_value(text, build_item=None, max_characters=None, make_container=None):
    """Return the value that :func:`encode_value` wrote, as exact built-in types.

    Args:
        build_item: returns the object for ``(tag, content, members)``, the form of ``export_item``.
        max_characters: longest text; :data:`MAX_CHARACTERS` by default.
        make_container: called with tag, members and the level of the deepest member instead of
            making a list, tuple, set, frozenset or dict.

    Raises:
        ValueRefused: the text is too long, or not what :func:`encode_value` writes.
    """
    limit = MAX_CHARACTERS if max_characters is None else max_characters
    if len(text) > limit:
        raise ValueRefused(f"a value of more than {limit} characters")
    try:
        parts = json.loads(text, object_pairs_hook=_refuse_object)
        if type(parts) is not list or not parts:
            raise ValueRefused("not a list of parts")
        return _build_value(parts, build_item, make_container or _make_container)
    except (ValueError, TypeError, LookupError, RecursionError, ArithmeticError) as error:
        raise ValueRefused(f"malformed: {error}") from None


def _refuse_object(_pairs):
    raise ValueRefused("an object")


def _build_value(parts, build_item, make_container):
    """Build from the last part to the first: members are complete before their container is."""
    stack = []
    levels = []  # depth of tuples and frozensets in each value of the stack
    for part in reversed(parts):
        level = 0
        if type(part) in _SCALARS:
            value = part
        elif len(part) == 3:
            tag, content, count = part
            members, deepest = _pop_members(count, stack, levels)
            value, level = build_item(tag, content, members), deepest + 1
        else:
            tag, content = part
            if tag == "i":
                value = int(content, 16)
            elif tag == "b":
                value = b64decode(content, validate=True)
            elif tag == "c":
                value = complex(*map(float.fromhex, content))
            elif tag == "q":
                value = range(*content)
            elif tag == "y":
                value = _TYPES[content]
            elif tag == "w":
                outer_tag, *rows = content
                value, level = make_container(outer_tag, _decode_rows(*rows), 1), 2
            elif type(content) is list:
                if not _SCALARS.issuperset(map(type, content)):
                    raise ValueRefused("a member that is no scalar")
                value, level = make_container(tag, content, 0), 1
            else:
                count = 2 * content if tag == "d" else content
                members, deepest = _pop_members(count, stack, levels)
                value, level = make_container(tag, members, deepest), deepest + 1
        stack.append(value)
        levels.append(level)
    if len(stack) != 1:
        raise ValueRefused(f"{len(stack)} values instead of one")
    return stack[0]


def _pop_members(count, stack, levels):
    """Take a container's members off the stack; return them and the level of the deepest."""
    if type(count) is not int or not 0 <= count <= len(stack):
        raise ValueRefused("a bad length")
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
