"""Output folders: each belongs to one command, and one process at a time works in it.

The file ``.lock`` of a folder names the command that owns it, and is locked while a process works.

Invariants:
* A folder is claimed if it is missing, empty (hidden files do not count) or the command's own.
  Nothing in another folder changes.
* A dead process holds no lock.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from verl_pipeline.outputs.errors import OutputError, name_system_errors, refuse_tilde
from verl_pipeline.outputs.files import encode_line, parse_record, refuse_inputs
from verl_pipeline.outputs.named_file import NamedFile

LOCK_NAME = ".lock"
# Entries of a foreign folder that an error names.
_SHOWN_ENTRIES = 3
_RETRY_S = 0.5


@dataclass(frozen=True)
class FolderKind:
    """What a command writes into its output folder.

    Attributes:
        command: what owns the folder, as in "verl-pipeline eval".
        landmarks: patterns of files below the folder by which the output of an earlier version,
            which did not sign its folders, is known: each matches.
        written: patterns of the files below the folder that it writes, and may find there.
        option: name of the option or setting that chooses the folder.
    """

    command: str
    landmarks: tuple[str, ...]
    written: tuple[str, ...]
    option: str = "--output"


@contextlib.contextmanager
def claim_output(
    folder: Path,
    kind: FolderKind,
    inputs: Mapping[str, Path] | None = None,
    wait_s: float = 0.0,
    notify: Callable[[], None] = lambda: None,
) -> Iterator[NamedFile]:
    """Claim ``folder`` for a command, and lock it against other processes of this machine.

    A process that inherits the lock file keeps the lock.

    Args:
        inputs: files and folders that the command reads, by the name of their option.
        wait_s: how long to wait for another process that works there, in seconds.
        notify: called once if there is one.

    Yields:
        The open lock file.

    Raises:
        OutputError: the folder is not the command's own or holds an input that would be
            overwritten, another process works there, or the system refuses.
    """
    check_output(folder, kind, inputs)
    with name_system_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with NamedFile(folder / LOCK_NAME, "a+") as lock:
        _wait_for_lock(lock, folder, kind, wait_s, notify)
        if _read_owner(folder) is None:
            _sign_folder(lock, kind)
        # Another command may have claimed the folder meanwhile.
        check_output(folder, kind)
        yield lock


def check_output(folder: Path, kind: FolderKind, inputs: Mapping[str, Path] | None = None) -> None:
    """Refuse what :func:`claim_output` refuses, but for the lock; nothing is written.

    Raises:
        OutputError: see :func:`claim_output`.
    """
    refuse_tilde(folder)
    _refuse_inputs(folder, kind, inputs or {})
    with name_system_errors(folder):
        try:
            folder.lstat()
        except FileNotFoundError:
            return
        if not folder.is_dir():
            raise OutputError(f"{folder} is not a folder; choose another {kind.option}")
        entries = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        owner = _read_owner(folder)
    if owner == kind.command or (owner is None and not entries):
        return
    if owner is None and is_earlier_output(folder, kind):
        return
    if owner is not None:
        found = f"belongs to {owner}, not"
    else:
        more = f" and {len(entries) - _SHOWN_ENTRIES} more" * (len(entries) > _SHOWN_ENTRIES)
        found = f"holds {', '.join(entries[:_SHOWN_ENTRIES])}{more} and does not belong"
    raise OutputError(f"{folder} {found} to {kind.command}; choose another {kind.option}")


def is_earlier_output(folder: Path, kind: FolderKind) -> bool:
    """Whether a version of the command that did not yet sign its folders wrote this one."""
    return all(any(folder.glob(pattern)) for pattern in kind.landmarks)


def _read_owner(folder: Path) -> str | None:
    """Return the command that owns a folder; None if its lock file names none."""
    path = folder / LOCK_NAME
    if not os.path.lexists(path):
        return None
    content = path.read_bytes() if path.is_file() else b"?"  # a pipe would block
    command = (parse_record(content) or {}).get("command")
    if content and not isinstance(command, str):
        return "the program that made its .lock"
    return command


def _sign_folder(lock: NamedFile, kind: FolderKind) -> None:
    try:
        lock.write(encode_line({"command": kind.command}))
    except OutputError:
        # An incomplete signature would pass for another program's.
        os.ftruncate(lock.fileno(), 0)
        raise


def _refuse_inputs(folder: Path, kind: FolderKind, inputs: Mapping[str, Path]) -> None:
    with name_system_errors(folder):
        written = [path for pattern in kind.written for path in folder.glob(pattern)]
    for path in (folder, *written):
        refuse_inputs(path, kind.option, inputs)


def _wait_for_lock(
    lock: NamedFile, folder: Path, kind: FolderKind, wait_s: float, notify: Callable[[], None]
) -> None:
    deadline = time.monotonic() + wait_s
    has_notified = False
    while True:
        try:
            with name_system_errors(folder):
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OutputError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
        if time.monotonic() > deadline:
            raise OutputError(
                f"another process is writing to {folder}: wait for it, or choose another "
                f"{kind.option}"
            )
        if not has_notified:
            notify()
            has_notified = True
        time.sleep(_RETRY_S)
