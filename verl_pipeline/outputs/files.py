"""Writing of files: whole ones by one rename, records one per line.

Invariants:
* Only regular files are written: neither a folder nor a pipe, terminal or device. A link is
  followed, and stays a link.
* A whole file is on the disk before it gets its name, so a full disk leaves the earlier content.
* A file of records has one writer at a time. A record that does not fit on the disk is taken back.
"""

import contextlib
import fcntl
import glob
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.outputs.errors import OutputError, name_system_errors, refuse_tilde
from verl_pipeline.outputs.named_file import NamedFile

Row = dict[str, Any]
# Of a foreign file, in an error.
_SHOWN_BYTES = 60
_MARKED_BYTES = 1 << 20
_SCRATCH_SUFFIX = ".partial"


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[NamedFile]:
    """Write a new content of ``path``, which replaces the old one when the context ends.

    The folder is created if needed. If the context ends with an error, nothing changes.

    Yields:
        The file to write to.

    Raises:
        OutputError: the system refuses, or ``path`` is something else than a regular file.
    """
    target = prepare_target(path)
    _remove_scratch_files(target)
    scratch = target.with_name(f".{target.name}.{os.getpid()}{_SCRATCH_SUFFIX}")
    try:
        with NamedFile(scratch, "w", path) as file:
            # Without locks on this file system, _remove_scratch_files removes nothing either.
            with contextlib.suppress(OSError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield file
            file.save()
        with name_system_errors(path):
            scratch.replace(target)
        save_folder(target.parent)
    finally:
        # If the folder itself is refused, the error on its way says so already.
        with contextlib.suppress(OSError):
            scratch.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace a file by ``text``, in UTF-8; half surrogates, which it lacks, become ``\\udcff``."""
    with replace_file(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Replace a file by ``content`` as JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by one JSON line per row."""
    with replace_file(path) as file:
        for row in rows:
            file.write(encode_line(row))


def encode_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as one JSON line, in ASCII."""
    return (json.dumps(row) + "\n").encode()


def prepare_target(path: Path) -> Path:
    """Create the folder of a file to be written; return the path without links.

    Raises:
        OutputError: the folder cannot be created, or ``path`` is no regular file.
    """
    refuse_tilde(path)
    target = Path(os.path.realpath(path))
    with name_system_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            return target
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, terminal or device"
        raise OutputError(f"{path} is a {kind}, not a file; choose another output")
    return target


def refuse_foreign_text(path: Path, mark: str, title: str, option: str = "--output") -> None:
    """Refuse to replace a file that is not the command's own; an empty one is.

    Args:
        mark: what every file of the command holds in its first :data:`_MARKED_BYTES`.
        title: what the file should be, as in "a card of verl_pipeline.recipes.deepcoder.card".
        option: name of the option that chooses the file.

    Raises:
        OutputError: the file holds something else, or the system refuses to read it.
    """
    if not os.path.lexists(path):
        return
    target = prepare_target(path)
    with name_system_errors(path):
        content = b""
        if target.exists():
            with target.open("rb") as file:
                content = file.read(_MARKED_BYTES)
    if content and mark.encode() not in content:
        first_line = content.lstrip().split(b"\n", 1)[0][:_SHOWN_BYTES].decode(errors="replace")
        raise OutputError(
            f"{path} begins with {first_line!r}: it is not {title}; choose another {option}"
        )


def refuse_inputs(output: Path, option: str, inputs: Mapping[str, Path]) -> None:
    """Refuse an output that is an input, by the same name, through a link or as a hard link.

    Args:
        output: the file or folder to be written.
        option: name of the option that chooses it.
        inputs: files and folders that the command reads, by the name of their option.

    Raises:
        OutputError: the message names both options.
    """
    with name_system_errors(output):
        try:
            found = output.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
    for name, path in inputs.items():
        with contextlib.suppress(OSError):  # an input that cannot be read is named by its reader
            if os.path.samestat(found, path.stat()):
                raise OutputError(
                    f"{option}: {output} would overwrite the input {name} {path}; choose another "
                    f"{option}"
                )


@dataclass(frozen=True)
class RecordKind:
    """What the records of a file are, so that the file of something else is refused.

    Attributes:
        title: what they are, for the error, as in "verdicts of verl-pipeline grade".
        fields: fields that every record has.
        option: name of the option that chooses the file.
    """

    title: str
    fields: tuple[str, ...]
    option: str = "--output"


class JsonLinesFile:
    """An append-only file of JSON lines, locked against other writers.

    Args:
        path: the file; created if needed, with its folder.
        kind: the records that an existing file must hold; None for a file in a folder that the
            command has claimed.

    Raises:
        OutputError: the system refuses, another process is writing, or the file holds something
            else.
    """

    def __init__(self, path: Path, kind: RecordKind | None = None):
        self.path = path
        self._file = NamedFile(prepare_target(path), "a+", path)
        try:
            with name_system_errors(path):
                try:
                    fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise OutputError(
                        f"{path}: another process is writing there: wait for it, or choose another "
                        "output"
                    ) from None
            _complete_records(self._file, kind)
        except BaseException:
            self._file.close()
            raise

    def read_rows(self) -> Iterator[Row]:
        """Yield the stored records."""
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield json.loads(line)

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Append one record; a killed process does not lose it.

        Raises:
            OutputError: it could not be written; the records before it are intact.
        """
        size = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write(encode_line(row))
        except OutputError:
            # If it fails as well, the next writer cuts the unfinished record.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), size)
            raise

    def close(self) -> None:
        """Save the records to disk and let others write."""
        if not self._file.closed:
            with self._file:
                self._file.save()


def parse_record(line: bytes) -> Row | None:
    """Return the JSON object of a line, or None if it is none."""
    try:
        row = json.loads(line)
    except ValueError:  # covers UnicodeDecodeError
        return None
    return row if isinstance(row, dict) else None


def is_unfinished_record(line: bytes) -> bool:
    """Whether a line may be what is left of a record: after a power failure, zeros, too."""
    return line.startswith((b"{", b"\0")) and not line.endswith(b"\n")


def _complete_records(file: NamedFile, kind: RecordKind | None) -> None:
    """Check the records; end an unfinished last line, or cut what is left of a record."""
    with name_system_errors(file.path):
        with open(os.dup(file.fileno()), "rb") as reader:
            reader.seek(0)
            size = count = 0
            line = b""
            for number, line in enumerate(reader, 1):
                is_complete = line.endswith(b"\n")
                if kind and line.strip() and (is_complete or not count or parse_record(line)):
                    _check_record(file.path, number, line, kind)
                    count += 1
                if is_complete:
                    size += len(line)
        if line and not line.endswith(b"\n"):
            if parse_record(line):
                file.write(b"\n")
            elif is_unfinished_record(line):
                os.ftruncate(file.fileno(), size)
            elif line.strip():
                raise OutputError(
                    f"{file.path} ends with {line[:_SHOWN_BYTES].decode(errors='replace')!r}, "
                    "which is no part of a record; remove it, or choose another output"
                )


def _check_record(path: Path, number: int, line: bytes, kind: RecordKind) -> None:
    row = parse_record(line)
    if row is None:
        found = "is no JSON object"
    elif missing := [name for name in kind.fields if name not in row]:
        found = f"has the fields {', '.join(row) or '(none)'} and not {', '.join(missing)}"
    else:
        return
    raise OutputError(
        f"{path} line {number} {found}: the file does not hold {kind.title}; choose another "
        f"{kind.option}"
    )


def _remove_scratch_files(target: Path) -> None:
    """Remove what killed processes have left of ``target``; a living one holds a lock on its."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{_SCRATCH_SUFFIX}"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def save_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last beyond a power failure, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
