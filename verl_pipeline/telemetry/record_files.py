"""Reads files of records (:mod:`.records`) into tables.

Invariants:
* A line is a record or it is left out and counted: broken, truncated or interleaved ones, ones with
  a field of another type or without one that they need, times that no clock shows.
* Arrow's parser gets only lines that are one object without others inside: it takes two objects on
  a line, or one on two lines, without a word, and ends the process at a file that begins with
  ``null``. All other lines go through Python's parser, one by one.
"""

import json
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache, partial
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

# Parsed at once: few enough for a processor's cache.
_BLOCK_BYTES = 4 << 20
# Read ahead, for as many threads as want one.
_BLOCKS_AT_ONCE = 16
# A block with a line that is no flat object is parsed in parts of this many lines.
_PART_LINES = 2000
# Integers that a float holds too, so that no arithmetic of a reader overflows.
_LARGEST_INT = 1 << 53
# Seconds since the epoch: the year 5138.
_LATEST_TIME = 1e11
_TIMES = {"t", "start", "end", "first_token", "started"}


def read_table(path: Path, record: type, last_bytes: int | None = None) -> tuple[pa.Table, int]:
    """Read a file of records.

    Args:
        record: the dataclass.
        last_bytes: if given, only the whole lines in the last part of the file are read.

    Returns:
        A table with the record's fields (``detail`` as JSON text) and the number of lines left out.

    Raises:
        OSError: the file cannot be read.
    """
    tables, lines = [make_schema(record).empty_table()], 0
    blocks = _read_blocks(path, last_bytes)
    with ThreadPoolExecutor() as pool:
        while some := list(islice(blocks, _BLOCKS_AT_ONCE)):
            for table, count in pool.map(partial(_parse_block, record=record), some):
                tables.append(table)
                lines += count
    whole = _select_possible(pa.concat_tables(tables), record)
    return whole, lines - whole.num_rows


def read_records(path: Path, record: type) -> tuple[list[Any], int]:
    """Read a file of few records as objects of the dataclass ``record``; see :func:`read_table`."""
    records, broken = [], 0
    for block in _read_blocks(path):
        for line in filter(bytes.strip, block.split(b"\n")):
            values = parse_line(line, record)
            if values is None:
                broken += 1
            else:
                records.append(record(**values))
    return records, broken


def parse_line(line: bytes, record: type) -> dict[str, Any] | None:
    """Return the fields of a record, or None if the line is not one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    found: dict[str, Any] = {}
    for name, (kind, is_optional, is_needed) in _list_kinds(record).items():
        if name not in values:
            # Writers leave out what is null or empty.
            if is_needed and not (is_optional or kind is dict):
                return None
            if is_needed:
                found[name] = None if is_optional else {}
            continue
        value = _convert(values[name], kind)
        if name in _TIMES and value is not None and not 0 < value < _LATEST_TIME:
            return None
        if value is None:
            # A number that is none (NaN, infinite) is not known; what is of another type is broken.
            given = values[name]
            is_no_number = isinstance(given, float) and not math.isfinite(given)
            is_unknown = given is None or (kind is float and is_no_number)
            if not (is_unknown and (is_optional or not is_needed)):
                return None
            if not is_optional:
                continue
        found[name] = value
    return found


@cache
def make_schema(record: type) -> pa.Schema:
    """Return the columns of a table of ``record``; dictionaries and lists are JSON text."""
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.schema(
        [
            (name, pa.string() if issubclass(kind, StrEnum) else types.get(kind, pa.string()))
            for name, (kind, _, _) in _list_kinds(record).items()
        ]
    )


@cache
def _list_kinds(record: type) -> dict[str, tuple[type, bool, bool]]:
    """By field: its type, whether it may be null, whether it must be there."""
    hints = get_type_hints(record)
    kinds = {}
    for field in fields(record):
        options = get_args(hints[field.name])
        if not isinstance(hints[field.name], UnionType):
            options = (hints[field.name],)
        kind = get_origin(options[0]) or options[0]
        is_needed = field.default is MISSING and field.default_factory is MISSING
        kinds[field.name] = (kind, type(None) in options, is_needed)
    return kinds


def _convert(value: Any, kind: type) -> Any:
    """Return a value as ``kind``, or None if it is not of it."""
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and abs(value) <= sys.float_info.max else None
    if kind is int:
        is_whole = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_whole or not abs(value) <= _LARGEST_INT or value != int(value):
            return None
        return int(value)
    if issubclass(kind, str):
        if not isinstance(value, str):
            return None
        if issubclass(kind, StrEnum) and value not in list(kind):
            return None
        # Half of a surrogate pair is no text that could be written again.
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, kind) else None


def _read_blocks(path: Path, last_bytes: int | None = None) -> Iterator[bytes]:
    """Yield a file in parts of whole lines; the last line may lack its end."""
    with path.open("rb") as file:
        if last_bytes is not None and (start := file.seek(0, os.SEEK_END) - last_bytes) > 0:
            file.seek(start - 1)
            file.readline()  # up to the end of the line before
        else:
            file.seek(0)
        while block := file.read(_BLOCK_BYTES):
            yield block if block.endswith(b"\n") else block + file.readline()


def _parse_block(block: bytes, record: type) -> tuple[pa.Table, int]:
    """Return a block's records and its number of lines that are not empty."""
    schema = make_schema(record)
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if (table := _parse_flat(block, lines, record)) is not None:
        return table, lines
    parts, rows = [], []
    whole = [line for line in block.split(b"\n") if line.strip()]
    for start in range(0, len(whole), _PART_LINES):
        part = whole[start : start + _PART_LINES]
        table = _parse_flat(b"\n".join(part), len(part), record)
        if table is None:
            rows = [row for line in part if (row := parse_line(line, record)) is not None]
            for row in rows:
                row |= {name: json.dumps(row[name]) for name in _list_texts(record) & row.keys()}
            table = pa.Table.from_pylist(rows, schema)
        parts.append(table)
    return pa.concat_tables([schema.empty_table(), *parts]), len(whole)


def _parse_flat(block: bytes, lines: int, record: type) -> pa.Table | None:
    """Return what Arrow reads, or None if a line is not a flat object with the fields' types."""
    if "detail" in make_schema(record).names:  # an empty one is as good as none
        block = block.replace(b', "detail": {}', b"").replace(b',"detail":{}', b"")
    # Each line begins with the only brace that opens in it, and ends with one that closes.
    is_flat = (
        block.startswith(b"{")
        and block.endswith((b"}", b"}\n"))
        and block.count(b"{") == lines
        and block.count(b"}\n{") == lines - 1
    )
    if not is_flat:
        return None
    try:
        if not block.isascii():
            block.decode()  # Arrow takes what is not UTF-8 for text
        return pj.read_json(
            pa.BufferReader(block),
            read_options=pj.ReadOptions(block_size=len(block) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=make_schema(record), unexpected_field_behavior="ignore"
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None


@cache
def _list_texts(record: type) -> frozenset[str]:
    """Names of the fields that are JSON text in a table."""
    kinds = _list_kinds(record)
    return frozenset(name for name, (kind, _, _) in kinds.items() if kind in (dict, list))


def _select_possible(table: pa.Table, record: type) -> pa.Table:
    """Return the rows that have what a record needs, with defaults in place of what they lack."""
    mask = pa.scalar(True)
    for name, (kind, is_optional, is_needed) in _list_kinds(record).items():
        column = table[name]
        if kind is float and pc.any(pc.invert(pc.is_finite(column))).as_py():
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
            table = table.set_column(table.schema.get_field_index(name), name, column)
        if is_needed and not is_optional:
            mask = pc.and_(mask, pc.is_valid(column))
        if kind is int:
            mask = pc.and_(mask, _accept_null(pc.less_equal(column, _LARGEST_INT)))
            mask = pc.and_(mask, _accept_null(pc.greater_equal(column, -_LARGEST_INT)))
        if name in _TIMES:
            mask = pc.and_(mask, _accept_null(pc.greater(column, 0.0)))
            mask = pc.and_(mask, _accept_null(pc.less(column, _LATEST_TIME)))
        if kind is not str and issubclass(kind, StrEnum):
            mask = pc.and_(mask, pc.is_in(column, pa.array([str(value) for value in kind])))
        if not (is_optional or is_needed):
            default = "{}" if kind is dict else False
            filled = pc.fill_null(column, default)
            table = table.set_column(table.schema.get_field_index(name), name, filled)
    if {"start", "end"} <= set(table.column_names):
        mask = pc.and_(mask, _accept_null(pc.less_equal(table["start"], table["end"])))
    return table.filter(mask) if table.num_rows else table


def _accept_null(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(mask, True)
