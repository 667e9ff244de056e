"""Damaged files for commands: what stands where a file should be, and how its bytes may be wrong.

Invariant: nothing is larger than a test can bear (a huge line has 20 million characters).
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.broken_inputs import BrokenInput, encode_contents, write_contents

HUGE_LINE_CHARACTERS = 20_000_000
# For inputs without an end: more than any command needs to refuse them.
MEMORY_BYTES = 1 << 30


def damage_file(slot: str, damage: str) -> BrokenInput:
    """The file ``slot`` with one of :data:`FILE_DAMAGES`."""
    make, must_be_refused, keeps_file = FILE_DAMAGES[damage]
    return BrokenInput(
        slot,
        damage,
        make,
        must_be_refused=must_be_refused,
        keeps_file=keeps_file,
        memory_bytes=MEMORY_BYTES if "endless" in damage else None,
    )


def _make_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("{}")


def _recode(encoding: str) -> Callable[[Path], None]:
    return lambda path: write_contents(path, path.read_bytes().decode().encode(encoding))


def _change(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: write_contents(path, change(path.read_bytes()))


def _new(payload: bytes) -> Callable[[Path], None]:
    return lambda path: write_contents(path, payload)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


# How to make it, whether a command must refuse it, and whether it is made of the file as it was.
FILE_DAMAGES: dict[str, tuple[Callable[[Path], None], bool, bool]] = {
    "missing": (lambda path: None, True, False),
    "a folder": (_make_folder, True, False),
    "a named pipe": (os.mkfifo, True, False),
    "a dangling link": (_link("nowhere"), True, False),
    "a link to itself": (_link("."), True, False),
    "/dev/null": (_link("/dev/null"), False, False),
    "endless zeros": (_link("/dev/zero"), True, False),
    "unreadable": (lambda path: path.chmod(0), True, True),
    "empty": (_new(b""), False, False),
    "blank lines": (_new(b"\n \r\n\t\n"), False, False),
    "byte order mark": (_change(lambda text: b"\xef\xbb\xbf" + text), False, True),
    "CRLF": (_change(lambda text: text.replace(b"\n", b"\r\n")), False, True),
    "CR": (_change(lambda text: text.replace(b"\n", b"\r")), False, True),
    "no final newline": (_change(lambda text: text.rstrip(b"\n")), False, True),
    "UTF-16": (_recode("utf-16"), True, True),
    "UTF-32": (_recode("utf-32"), True, True),
    "invalid UTF-8": (_change(lambda text: text.replace(b'"', b'"\xff', 1)), True, True),
    "NUL bytes": (_change(lambda text: text.replace(b'"', b'"\0', 1)), True, True),
    "zeros only": (_new(bytes(4096)), True, False),
    "gzip": (_change(gzip.compress), True, True),
    "parquet": (_new(encode_contents(".parquet", [{"id": 1}])), True, False),
    "cut in the middle": (_change(lambda text: text[: len(text) // 2]), True, True),
    "a huge line": (_new(b"[" + b"0," * (HUGE_LINE_CHARACTERS // 2) + b"0]\n"), True, False),
    "a huge line without an end": (_new(b"x" * HUGE_LINE_CHARACTERS), True, False),
    "HTML": (_new(b"<!doctype html><title>404</title>\n"), True, False),
}
# The rest is tried in the slow tests.
QUICK_DAMAGES = ("a named pipe", "UTF-16")
each_damage = pytest.mark.parametrize(
    "damage",
    [
        name if name in QUICK_DAMAGES else pytest.param(name, marks=pytest.mark.slow)
        for name in FILE_DAMAGES
    ],
)
