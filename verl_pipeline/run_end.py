"""The end of a run's processes on one machine, engines first, each by process id.

Ray kills its actors outright: an engine that still runs by then would leave its shared memory
behind (hundreds of MB a replica). What a killed engine has left is removed afterwards.

Invariants:
* No process is signalled but those that were listed, no shared memory removed but what they had
  mapped.
* Every wait has an end.
"""

import contextlib
import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from verl_pipeline import shared_memory
from verl_pipeline.leftovers import ENGINE_TITLE, SOCKET_FOLDER, SOCKET_NAME
from verl_pipeline.processes import wait_until_ended


class RunEnd:
    """The end of the processes that ``list_processes`` finds, now and before the last step.

    Args:
        segments: shared memory that such processes had mapped earlier, some of which may have ended
            without removing it.
    """

    def __init__(
        self, list_processes: Callable[[], list[psutil.Process]], segments: Iterable[Path] = ()
    ):
        self._list_processes = list_processes
        self.processes = list_processes()
        self._segments = {
            *segments,
            *(
                path
                for process in self.processes
                for path in shared_memory.find_mapped_segments(process)
            ),
        }

    def end_engines(self, seconds: float) -> None:
        """Have the engines end in order, within ``seconds``."""
        engines = [each for each in self.processes if read_name(each).startswith(ENGINE_TITLE)]
        _send_signal(engines, signal.SIGTERM)
        wait_until_ended(engines, seconds)

    def end_rest(self, grace_s: float, seconds: float) -> None:
        """End what is left and remove its shared memory, within ``grace_s + seconds``.

        Args:
            grace_s: for processes to end by themselves.
        """
        processes = list({*self.processes, *self._list_processes()})
        alive = wait_until_ended(processes, grace_s)
        for number in (signal.SIGTERM, signal.SIGKILL):
            _send_signal(alive, number)
            alive = wait_until_ended(alive, seconds / 2)
        for path in self._segments:
            path.unlink(missing_ok=True)


def note_processes(processes: Iterable[psutil.Process]) -> list[list]:
    """Of each process that is there, its id, its time of creation and the segments that it has
    mapped, as a plain list.
    """
    noted = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            segments = sorted(map(str, shared_memory.find_mapped_segments(process)))
            noted.append([process.pid, process.create_time(), segments])
    return noted


def _send_signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def read_name(process: psutil.Process) -> str:
    """The title of a process; "" once it has ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def remove_sockets() -> None:
    """Remove this user's sockets of engines that have no listener; neither verl nor vLLM does."""
    folders = {Path(tempfile.gettempdir()), SOCKET_FOLDER}
    found = [
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if SOCKET_NAME.fullmatch(path.name)
    ]
    # Read afterwards: a socket that another run makes meanwhile is not among the found ones.
    bound = Path("/proc/net/unix").read_text() if Path("/proc/net/unix").exists() else ""
    for path in found:
        if str(path) in bound:
            continue
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid():
                path.unlink()
