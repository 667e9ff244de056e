"""Temporary folders that go with the process that made them, however it ends.

Invariants:
* The process keeps a lock on its folder. A killed process leaves the folder behind, without the
  lock: the next process that makes a folder with the same prefix removes it.
* Forks inherit the lock and the exit handler, but only the maker removes the folder.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

# Of a run, in the system's folder for temporary files: of CPU engines' sockets, and of the fork
# server.
SOCKETS_PREFIX, FORKS_PREFIX = "verl-pipeline-", "verl-forks-"


def make_temporary_folder(prefix: str, parent: Path | None = None) -> Path:
    """Make a folder that is removed at exit, and remove those that killed processes have left.

    Args:
        prefix: beginning of its name, used by nothing else in ``parent``.
        parent: the folder around it; by default the system's for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_left_folders(prefix, parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        if _keep_lock(folder):
            remove_at_exit(folder)
            return folder


def remove_left_folders(prefix: str, parent: Path | None = None) -> None:
    """Remove the folders that killed processes have left; arguments as for a new one."""
    for left in (parent or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
        _remove_without_owner(left)


def _keep_lock(folder: Path) -> bool:
    """Lock a new folder; False if another process has taken it for a left one before."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError:  # no locks on this file system: nobody can take it for a left one either
        os.close(descriptor)
        return True
    else:
        if folder.exists():
            return True
    os.close(descriptor)
    return False


def remove_at_exit(folder: Path) -> None:
    """Remove a folder when this process ends; forks, which inherit the exit handler, leave it."""
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def _remove_without_owner(folder: Path) -> None:
    """Remove a folder of this user on which no process has a lock."""
    # It may vanish at any moment, or belong to somebody else.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
