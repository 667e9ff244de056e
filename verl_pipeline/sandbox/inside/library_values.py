"""Values of the standard library's types (and numpy's arrays) that cross as exact copies.

Invariants:
* Only objects of exactly these types cross here, never of a subclass, which could have methods of
  its own; of an array only with members that are numbers, truth values or texts, or are objects
  that cross by themselves.
* A copy is made by the type itself from built-in values of checked types.
"""

import array
import collections
import datetime
import decimal
import fractions
import functools
import io
import pathlib
import re
import sys
import types
import uuid
import zoneinfo

TAG, TYPE_TAG = "lib", "lib type"
_OBJECT_ARRAY = "|O"
_ARRAY_TYPE = re.compile(r"[<>|=][biufcSU][0-9]{1,9}")


class OpaqueValue:
    """Stands for a value that does not cross: true, as most objects are, and equal to nothing."""


def _split_datetime(item):
    return [*item.timetuple()[:6], item.microsecond, item.fold, item.tzinfo]


def _make_datetime(*members):
    *numbers, fold, zone = members
    return datetime.datetime(*numbers, zone, fold=fold)


def _split_time(item):
    return [item.hour, item.minute, item.second, item.microsecond, item.fold, item.tzinfo]


def _make_time(*members):
    *numbers, fold, zone = members
    return datetime.time(*numbers, zone, fold=fold)


def _make_string_io(kind, text, position):
    made = kind(text, newline="") if kind is io.StringIO else kind(text)
    made.seek(position)
    return made


def _make_namespace(attributes):
    made = types.SimpleNamespace()
    vars(made).update(attributes)
    return made


# Of each type: how to take an object apart, and how to make it; the types of members that the
# second function itself does not check.
_TYPES = {
    fractions.Fraction: (lambda item: [item.numerator, item.denominator], fractions.Fraction),
    decimal.Decimal: (lambda item: [str(item)], decimal.Decimal),
    datetime.date: (lambda item: [item.year, item.month, item.day], datetime.date),
    datetime.datetime: (_split_datetime, _make_datetime),
    datetime.time: (_split_time, _make_time),
    datetime.timedelta: (
        lambda item: [item.days, item.seconds, item.microseconds],
        datetime.timedelta,
    ),
    datetime.timezone: (lambda item: list(item.__getinitargs__()), datetime.timezone),
    zoneinfo.ZoneInfo: (lambda item: [item.key], zoneinfo.ZoneInfo),
    collections.deque: (lambda item: [list(item), item.maxlen], collections.deque),
    collections.Counter: (lambda item: [dict(item)], collections.Counter),
    collections.OrderedDict: (lambda item: [dict(item)], collections.OrderedDict),
    collections.defaultdict: (
        lambda item: [item.default_factory, dict(item)],
        collections.defaultdict,
    ),
    bytearray: (lambda item: [bytes(item)], bytearray),
    array.array: (lambda item: [item.typecode, item.tobytes()], array.array),
    uuid.UUID: (lambda item: [item.hex], uuid.UUID),
    re.Pattern: (lambda item: [item.pattern, item.flags], re.compile),
    pathlib.PosixPath: (lambda item: [str(item)], pathlib.PosixPath),
    pathlib.PurePosixPath: (lambda item: [str(item)], pathlib.PurePosixPath),
    slice: (lambda item: [item.start, item.stop, item.step], slice),
    type(...): (lambda item: [], lambda: ...),
    type(NotImplemented): (lambda item: [], lambda: NotImplemented),
    types.SimpleNamespace: (lambda item: [dict(vars(item))], _make_namespace),
    io.StringIO: (
        lambda item: [item.getvalue(), item.tell()],
        functools.partial(_make_string_io, io.StringIO),
    ),
    io.BytesIO: (
        lambda item: [item.getvalue(), item.tell()],
        functools.partial(_make_string_io, io.BytesIO),
    ),
}


def _get_name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


_NAMES = {_get_name(kind): kind for kind in _TYPES}
_MUTABLE = (
    "list dict set deque Counter OrderedDict defaultdict bytearray array ndarray SimpleNamespace "
    "StringIO BytesIO"
).split()
# Not by name: a subclass of one of these in a factory would make members of unknown types.
_FACTORIES = (None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)


def export_value(item):
    """Return ``(tag, content, members)``, or None if no copy of ``item`` can cross."""
    kind = type(item)
    if isinstance(item, type) and _NAMES.get(_get_name(item)) is item:
        return TYPE_TAG, _get_name(item), []
    if kind in _TYPES:
        if kind is collections.defaultdict and item.default_factory not in _FACTORIES:
            return TAG, "builtins.dict", [dict(item)]
        return TAG, _get_name(kind), _TYPES[kind][0](item)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and _may_cross(item.dtype.str):
        return TAG, "numpy.ndarray", [item.dtype.str, item.shape, item.ravel().tolist()]
    return None


def find_type(name):
    """Return the type of an exported type."""
    return _NAMES[name]


def build_value(name, members):
    """Return the copy of an exported value.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: it is malformed.
    """
    if name == "numpy.ndarray":
        return _build_array(*members)
    if name == "builtins.dict":
        (content,) = members
        return content
    kind = _NAMES[name]
    if kind is collections.defaultdict and members[0] not in _FACTORIES:
        raise ValueError("a factory of an unknown type")
    return _TYPES[kind][1](*members)


def _may_cross(data_type):
    return data_type == _OBJECT_ARRAY or _ARRAY_TYPE.fullmatch(data_type)


def _build_array(data_type, shape, flat):
    try:
        import numpy
    except ImportError:
        raise ValueError("an array, but numpy is not installed") from None
    if not _may_cross(data_type):
        raise ValueError(f"an array of {data_type}")
    if data_type != _OBJECT_ARRAY:
        return numpy.array(flat, dtype=data_type).reshape(shape)
    made = numpy.empty(len(flat), dtype=object)
    for index, member in enumerate(flat):  # a slice would take apart members that are lists
        made[index] = member
    return made.reshape(shape)


def copy_changes(ours, theirs):
    """Make our mutable object equal to its copy, which the other side may have changed.

    Members that are mutable and of one type are changed in place too, so that whoever holds one of
    them sees the change.
    """
    pairs = [(ours, theirs)]
    while pairs:
        mine, other = pairs.pop()
        kind = type(mine)
        if mine is other or kind is not type(other):
            continue
        if kind is list:
            _keep_members(pairs, mine, other, range(min(len(mine), len(other))))
            mine[:] = other
        elif kind in (dict, collections.Counter, collections.OrderedDict, collections.defaultdict):
            _keep_members(pairs, mine, other, [key for key in mine if key in other])
            mine.clear()
            mine.update(other)
        elif kind is set:
            mine.clear()
            mine.update(other)
        elif kind is collections.deque:
            mine.clear()
            mine.extend(other)
        elif kind in (bytearray, array.array):
            mine[:] = other
        elif kind is types.SimpleNamespace:
            vars(mine).clear()
            vars(mine).update(vars(other))
        elif kind in (io.StringIO, io.BytesIO):
            mine.seek(0)
            mine.truncate()
            mine.write(other.getvalue())
            mine.seek(other.tell())
        elif kind.__name__ == "ndarray" and mine.shape == other.shape and mine.flags.writeable:
            mine[...] = other


def _keep_members(pairs, mine, other, keys):
    """Put the members of ``mine`` in place of their copies in ``other``, to be changed later."""
    for key in keys:
        member = mine[key]
        if type(member) is type(other[key]) and type(member).__name__ in _MUTABLE:
            pairs.append((member, other[key]))
            other[key] = member
