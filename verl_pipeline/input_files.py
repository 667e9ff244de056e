"""Input files that a user names: checked before anything is read from them.

Invariants:
* Only regular files are read: a pipe may wait for ever, a device may have no end.
* Nothing is guessed: a file in another encoding or format is refused with what it is.
"""

import stat
from pathlib import Path

from verl_pipeline.errors import UserError

# First bytes of what is often given in place of text. UTF-32 before UTF-16, whose mark it contains.
_SIGNATURES = {
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "a parquet file: write its rows as JSON lines first",
    b"\xff\xfe\x00\x00": "UTF-32 text: save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text: save it as UTF-8",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


class InputError(UserError):
    """An input file cannot be read; the message names the file, what it is and what to do."""


def check_text_file(path: Path) -> None:
    """Check that ``path`` is a file that can be read, and that it starts as UTF-8 text may.

    Raises:
        InputError: it is missing, unreadable, no regular file, or in another format.
    """
    try:
        mode = path.stat().st_mode
        # Opening a pipe would wait for its writer.
        start = _read_start(path) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        raise InputError(f"{_show(path)}: no such file; correct the path") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{_show(path)} cannot be read: {reason}; correct the path or its permissions"
        ) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, terminal or device"
        raise InputError(f"{_show(path)} is {kind}; expected a file")
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            raise InputError(f"{_show(path)} is {kind}")


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(max(map(len, _SIGNATURES)))


def _show(path: Path) -> str:
    """Return a path as it is, or as Python writes it if a terminal could not show it."""
    return str(path) if str(path).isprintable() else repr(str(path))
