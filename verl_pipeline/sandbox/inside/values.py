"""Values that cross between a program and its judge: exact built-in types, as flat JSON.

Both sides load this file: the judge as part of the package, the jail by itself; it imports the
standard library only.

A value is a list of its parts in preorder. A scalar is itself, or a tagged pair where JSON has no
type for it; a container is a tag and a length, followed by its members (of a dict: key, value, key,
value ...).

Invariants:
* :func:`decode` makes nothing but None, bool, int, float, complex, str, bytes, range, list, tuple,
  set, frozenset, dict, their types and, where the caller allows them, plain records and references;
  it calls no method of what it made.
* Nothing recurses: a value may be as deep as it likes, up to the sizes below; but what is hashed
  (members of sets, keys of dicts) is shallow, because Python's hashing recurses, and does not
  collide.
"""

import json
from base64 import b64decode, b64encode

MOST_PARTS = 1_000_000
# Levels of tuples and frozensets in a member of a set or a key.
DEEPEST_HASHED = 100
# Members of one set or dict beyond as many different hashes: equal hashes make it quadratic.
MOST_COLLISIONS = 1000
# Of the text of a value; its parts may take ten times as much memory.
MOST_CHARACTERS = 16 << 20
_TAGS = {list: "l", tuple: "t", set: "s", frozenset: "f", dict: "d"}
# Types as values: an argument such as ``int``.
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
BASES = (bool, int, float, str, bytes, list, tuple, set, frozenset, dict)


class ValueRefused(ValueError):
    """A value that may not cross: too large, malformed, or of another type."""


class Opaque:
    """Stands for a value that does not cross: true, as most objects are, and equal to nothing."""


def encode(value, records=(), refer=None, opaque=False):
    """``value`` as JSON text.

    Instances of subclasses (a ``defaultdict``, an ``IntEnum``, a named tuple) cross as what they
    are based on, and numpy's scalars as Python's; instances of classes named in ``records`` as
    their attributes; objects for which ``refer(object)`` is a reference (any JSON), as that. With
    ``opaque``, all others cross as :class:`Opaque`.

    Raises:
        ValueRefused: any other type, or more than :data:`MOST_PARTS` parts.
    """
    parts = []
    todo = [value]
    while todo:
        item = todo.pop()
        kind = type(item)
        if item is None or kind is bool or kind is str:
            parts.append(item)
        elif kind is int:
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
                todo += (pair[1], pair[0])
        elif kind in _TAGS:
            parts.append([_TAGS[kind], len(item)])
            todo += reversed(list(item))
        elif kind.__name__ in records:
            parts.append(["r", kind.__name__])
            todo.append(dict(vars(item)))
        elif refer is not None and (number := refer(item)) is not None:
            parts.append(["n", number])
        elif (builtin := _as_builtin(item, kind)) is not item:
            todo.append(builtin)
        elif opaque:
            parts.append(["o", None])
        else:
            raise ValueRefused(f"a value of type {kind.__module__}.{kind.__qualname__}")
        if len(parts) + len(todo) > MOST_PARTS:
            raise ValueRefused(f"a value of more than {MOST_PARTS} parts")
    return json.dumps(parts)


def _as_builtin(item, kind):
    """What it is based on; ``item`` itself if that is nothing that crosses."""
    for base in BASES:
        if isinstance(item, base):
            # The base's own methods: an overridden one could run for ever.
            return (
                dict(dict.items(item)) if base is dict else base.__new__(base, _plain(item, base))
            )
    if kind.__module__ == "numpy" and hasattr(item, "item") and not getattr(item, "ndim", 1):
        return item.item()
    return item


def _plain(item, base):
    if base is int:
        return int.__index__(item)
    if base is float:
        return float.__float__(item)
    if base is str:
        return str.__str__(item)
    if base is bytes:
        return bytes.__getitem__(item, slice(None))
    return base.__iter__(item)


def decode(text, records=None, resolve=None):
    """What :func:`encode` wrote, as exact built-in types.

    Args:
        records: classes by name, for instances of which attributes were sent.
        resolve: what makes an object of a reference.

    Raises:
        ValueRefused: it is not what :func:`encode` writes.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueRefused(f"a value of more than {MOST_CHARACTERS} characters")
    try:
        parts = json.loads(text, object_pairs_hook=_no_object)
        if type(parts) is not list or not 0 < len(parts) <= MOST_PARTS:
            raise ValueRefused("not a list of parts")
        return _build(parts, records or {}, resolve)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise ValueRefused(f"malformed: {error}") from None


def _no_object(_pairs):
    raise ValueRefused("an object")


def _build(parts, records, resolve):
    """Backwards, so that a container's members are complete before it is."""
    stack = []
    levels = []  # of tuples and frozensets in each value of the stack
    for part in reversed(parts):
        level = 0
        if part is None or type(part) in (bool, int, str):
            made = part
        else:
            tag, content = part
            if tag == "i":
                made = int(content, 16)
            elif tag == "x":
                made = float.fromhex(content)
            elif tag == "b":
                made = b64decode(content, validate=True)
            elif tag == "c":
                made = complex(*map(float.fromhex, content))
            elif tag == "q":
                made = range(*content)
            elif tag == "y":
                made = _TYPES[content]
            elif tag == "r":
                made = _record(records[content], stack.pop())
                levels.pop()
            elif tag == "o":
                made = Opaque()
            elif tag == "n":
                made = resolve(content)
            else:
                members, level = _members(tag, content, stack, levels)
                made = _container(tag, members)
        stack.append(made)
        levels.append(level)
    if len(stack) != 1:
        raise ValueRefused(f"{len(stack)} values for one")
    return stack[0]


def _members(tag, length, stack, levels):
    """A container's members, taken off the stack, and its level."""
    if type(length) is not int or length < 0:
        raise ValueRefused("a length")
    count = 2 * length if tag == "d" else length
    if count > len(stack):
        raise ValueRefused("members are missing")
    start = len(stack) - count
    members, deepest = stack[start:][::-1], max(levels[start:], default=0)
    del stack[start:], levels[start:]
    if tag in ("s", "f", "d") and deepest > DEEPEST_HASHED:
        raise ValueRefused(f"a set or dict of members more than {DEEPEST_HASHED} levels deep")
    return members, deepest + 1


def _container(tag, members):
    if tag in ("l", "t"):
        return members if tag == "l" else tuple(members)
    hashed = members[::2] if tag == "d" else members
    if len(hashed) - len(set(map(hash, hashed))) > MOST_COLLISIONS:
        raise ValueRefused(f"a set or dict of {len(hashed)} members of mostly equal hashes")
    if tag == "d":
        return dict(zip(hashed, members[1::2], strict=True))
    return {"s": set, "f": frozenset}[tag](members)


def _record(cls, attributes):
    if type(attributes) is not dict:
        raise ValueRefused("attributes")
    made = object.__new__(cls)
    vars(made).update(attributes)
    return made
