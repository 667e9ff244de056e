"""Broken inputs for commands: wrong contents and wrong arguments (for files, see damaged_files).

Invariant: a label says what is broken, and two inputs with one label are the same.
"""

import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import assume
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.helpers.command_fuzz import FuzzedCommand


@dataclass(frozen=True)
class BrokenInput:
    """One broken input.

    Attributes:
        slot: the file that is broken; empty for arguments.
        label: what is wrong with it.
        make: writes it at the path of ``slot``.
        arguments: appended to the command's.
        line: of the file that is broken; None if it is not one line.
        fields: that lead to the broken value: a refusal names one of them.
        words: of which a refusal of arguments names one.
        must_be_refused: whether the command cannot make sense of it.
        keeps_file: whether ``make`` finds the file as it was.
        memory_bytes: that the command may add, or None.
    """

    slot: str
    label: str
    make: Callable[[Path], None] | None = None
    arguments: tuple[str, ...] = ()
    line: int | None = None
    fields: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    must_be_refused: bool = False
    keeps_file: bool = False
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Raw:
    """JSON text that ``json.dumps`` does not write."""

    text: str


BAD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    -5,
    2.5,
    1e308,
    -1e308,
    1e-320,
    10**400,
    Raw("9" * 5000),
    Raw("1e400"),
    Raw("NaN"),
    Raw("-Infinity"),
    Raw("0.1e-400"),
    "",
    " \t",
    "5",
    "NaN",
    "[/]",
    "[bold]",
    "{}",
    "${oc.env:HOME}",
    "a\0b",
    "a\nb\rc\x1b[31m",
    "\ud800",
    "\u202e\u2028",
    "x" * 100_000,
    "../../etc/passwd",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": [1]}},
    Raw("[" * 200 + "]" * 200),
    Raw("[" * 100_000 + "]" * 100_000),
    Raw('{"a":' * 100_000 + "1" + "}" * 100_000),
    Raw('{"a": 1, "a": 2}'),
]
BAD_ARGUMENTS = [
    *["", " ", "-5", "0", "2.5", "nan", "inf", "-inf", "1e400", "9" * 400, "1" * 5000, "true"],
    *[
        "null",
        "[",
        "]",
        "{",
        "{}",
        "[]",
        "[/]",
        "[bold]x",
        "=",
        "a=b",
        "a=b=c",
        "${x}",
        "${oc.env:X}",
    ],
    *["\x1b[31m", "\u202e", "a\nb", "é" * 300, "/", ".", "..", "~", "/dev/null", "/nowhere/x"],
    os.fsdecode(b"\xff\xfe"),
]


def write_contents(path: Path, contents: Any) -> None:
    """Write the contents that :class:`.command_fuzz.FuzzedCommand` describes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_contents(path.name, contents))


def encode_contents(name: str, contents: Any) -> bytes:
    """Return the bytes of a file with these contents."""
    if isinstance(contents, bytes):
        return contents
    if isinstance(contents, str):
        return contents.encode()
    if name.endswith(".parquet"):
        return _encode_parquet(contents)
    rows = contents if isinstance(contents, list) else [contents]
    return "".join(_write_json(row) + "\n" for row in rows).encode()


def broken_contents(command: "FuzzedCommand", slot: str) -> st.SearchStrategy[BrokenInput]:
    """Draw one of the file's rows (or the object that it is) with one or two wrong places."""
    contents = command.files[slot]
    rows = contents if isinstance(contents, list) else [contents]

    changes = [(number, change) for number, row in enumerate(rows) for change in _list_changes(row)]
    texts = st.text(st.characters(codec="utf-8"), max_size=8)

    @st.composite
    def draw_broken(draw: st.DrawFn) -> BrokenInput:
        # One choice among all, so that few draws are the same.
        number, change = draw(st.sampled_from(changes))
        row, what, fields = _apply_change(rows[number], change)
        label = [what]
        if draw(st.integers(0, 3)) == 3:
            row, what, more = _apply_change(row, draw(st.sampled_from(_list_changes(row))))
            label.append(what)
            fields = [] if more is None or fields is None else fields + more
        if isinstance(row, dict) and (extra := draw(st.just("") | texts)):
            row = {**row, extra: 1}
            label.append(f"extra field {extra!r}")
        fields = fields or []
        broken = [*rows[:number], row, *rows[number + 1 :]]
        try:
            payload = encode_contents(slot, broken if isinstance(contents, list) else row)
        except (ValueError, TypeError, OverflowError, ArithmeticError):
            assume(False)  # a parquet file cannot hold it
        if not slot.endswith(".parquet") and not _is_json(_write_json(row)):
            fields = []  # no reader gets as far as to a field
        return BrokenInput(
            slot,
            f"{' and '.join(label)} in row {number + 1}",
            lambda path: write_contents(path, payload),
            line=number + 1 if slot.endswith(".jsonl") else None,
            fields=tuple(fields),
        )

    return draw_broken()


def broken_arguments(
    command: "FuzzedCommand", options: Sequence[str], values: Sequence[str] = ()
) -> st.SearchStrategy[BrokenInput]:
    """Draw an option with a bad value; ``key=`` is an override of hydra, ``--key`` an option."""

    def make(option: str, value: str) -> BrokenInput:
        given = (option + value,) if option.endswith("=") else (option, value)
        name = option.rstrip("=")
        words = tuple({name, name.lstrip("-+"), name.lstrip("-+").split(".")[-1]})
        return BrokenInput("", " ".join(map(repr, given)), arguments=given, words=words)

    return st.builds(
        make, st.sampled_from(list(options)), st.sampled_from([*values, *BAD_ARGUMENTS])
    )


# A path of fields and indices, and the new value: a bad one, or what happens to the field.
_Change = tuple[tuple[Any, ...], Any]


@dataclass(frozen=True)
class _Missing:
    """Instead of a value: the field is missing."""


@dataclass(frozen=True)
class _Misspelt:
    """Instead of a value: the field has another name."""

    name: str


def _list_changes(row: Any) -> list[_Change]:
    """List what may be done to a row: everything bad for every field, and for the row itself."""
    changes: list[_Change] = [((), value) for value in BAD_VALUES]
    for path in _list_paths(row):
        changes += [(path, value) for value in [*BAD_VALUES, _Missing()]]
        if isinstance(path[-1], str) and len(path[-1]) > 1:
            changes.append((path, _Misspelt(path[-1][:-1])))
    return changes


def _apply_change(row: Any, change: _Change) -> tuple[Any, str, list[str] | None]:
    """Return the changed row, what is wrong, and the fields that lead there (None: the row)."""
    path, value = change
    name = ".".join(map(str, path)) or "the row"
    fields = [part for part in path if isinstance(part, str)] if path else None
    if isinstance(value, _Missing):
        return _replace(row, path, None, remove=True), f"no {name}", fields
    if isinstance(value, _Misspelt):
        return _rename(row, path, value.name), f"{value.name} for {name}", fields
    return _replace(row, path, value), f"{_describe(value)} for {name}", fields


def _list_paths(value: Any, start: tuple[Any, ...] = ()) -> Any:
    if start:
        yield start
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _list_paths(item, (*start, key))


def _replace(value: Any, path: tuple[Any, ...], new: Any, remove: bool = False) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and remove:
        del changed[path[0]]
    else:
        changed[path[0]] = _replace(value[path[0]], path[1:], new, remove)
    return changed


def _rename(value: Any, path: tuple[Any, ...], name: str) -> Any:
    if len(path) == 1:
        return {name if key == path[0] else key: item for key, item in value.items()}
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = _rename(value[path[0]], path[1:], name)
    return changed


def _write_json(value: Any) -> str:
    """``json.dumps`` with :class:`Raw` values as they are."""
    raw: list[str] = []

    def mark(item: Any) -> Any:
        if isinstance(item, Raw):
            raw.append(item.text)
            return f"@raw{len(raw) - 1}@"
        if isinstance(item, dict):
            return {key: mark(part) for key, part in item.items()}
        return [mark(part) for part in item] if isinstance(item, list) else item

    return re.sub(r'"@raw(\d+)@"', lambda match: raw[int(match[1])], json.dumps(mark(value)))


def _is_json(text: str) -> bool:
    """Whether text is JSON, without a key that an object has twice."""

    def check_keys(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice")

    try:
        json.loads(text, parse_int=str, object_pairs_hook=check_keys)
    except (ValueError, RecursionError):
        return False
    return True


def _encode_parquet(rows: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _describe(value: Any) -> str:
    text = value.text if isinstance(value, Raw) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
