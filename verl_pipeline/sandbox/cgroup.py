"""Control groups of a worker: they bound what no limit of a process sees (socket buffers, pipes,
files in memory).

Version 1 (one hierarchy for each controller) and version 2, at their usual places below
``/sys/fs/cgroup``.

Invariants:
* They are an addition: a judge who may make none has none, and all other limits hold as well.
* A group goes with its worker; what a killed judge has left is removed by the next one.
"""

import contextlib
import itertools
import os
import time
from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
_NAME = "verl_pipeline_{judge}_{number}"
# What a run may write beside its memory (standard streams, scratch), and the kernel's own for its
# processes.
BESIDE_BYTES = 512 << 20
# Until the kernel has forgotten the processes of a jail that has ended.
REMOVE_S = 2.0
_JOIN = (
    'for group in $GROUPS; do echo $$ > "$group/cgroup.procs" || exit; done; unset GROUPS; exec'
    ' "$@"'
)
_numbers = itertools.count()


class Groups:
    """Of one worker; without any group it does nothing.

    Args:
        processes: and threads, in all its jails together.
    """

    def __init__(self, processes: int):
        self._folders = {}
        name = _NAME.format(judge=os.getpid(), number=next(_numbers))
        for controller, home in _homes().items():
            _remove_old(home)
            with contextlib.suppress(OSError):
                folder = home / name
                folder.mkdir()
                self._folders[controller] = folder
                if controller == "pids":
                    (folder / "pids.max").write_text(str(processes))
        self._allowed = 0

    def joining(self, command: list[str]) -> list[str]:
        """``command``, started inside."""
        if not self._folders:
            return command
        folders = " ".join(map(str, self._folders.values()))
        return ["/usr/bin/env", f"GROUPS={folders}", "/bin/sh", "-c", _JOIN, "sh", *command]

    def allow(self, memory_bytes: int) -> None:
        """From now on all programs of the worker together may have ``memory_bytes``."""
        limit = memory_bytes + BESIDE_BYTES
        folder = self._folders.get("memory")
        if folder is not None and limit != self._allowed:
            name = (
                "memory.limit_in_bytes"
                if (folder / "memory.limit_in_bytes").exists()
                else "memory.max"
            )
            (folder / name).write_text(str(limit))
            self._allowed = limit

    def remove(self) -> None:
        """After its processes have ended."""
        deadline = time.monotonic() + REMOVE_S
        for folder in self._folders.values():
            while folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)


def _homes() -> dict[str, Path]:
    """By controller, the group this process is in."""
    homes: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        for controller in ("memory", "pids"):
            if controller in controllers.split(","):
                homes[controller] = ROOT / controller / path.lstrip("/")
            elif not controllers and controller not in homes:
                home = ROOT / path.lstrip("/")
                with contextlib.suppress(OSError):
                    if controller in (home / "cgroup.subtree_control").read_text().split():
                        homes[controller] = home
    return homes


def _remove_old(home: Path) -> None:
    for folder in home.glob(_NAME.format(judge="*", number="*")):
        judge = folder.name.split("_")[-2]
        if not psutil.pid_exists(int(judge)):
            with contextlib.suppress(OSError):
                folder.rmdir()
