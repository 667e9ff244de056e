"""Control groups of a worker: they limit resources that no limit of a process covers.

Such resources are the buffers of sockets, pipes, and files in memory. Version 1 (one hierarchy for
each controller) and version 2 are supported, at their usual places below ``/sys/fs/cgroup``.

Invariants:
* Control groups are optional: without permission to create them there are none, and all other
  limits still hold.
* A group is removed with its worker; the next judge removes groups that a killed judge left behind.
"""

import contextlib
import itertools
import os
import time
from pathlib import Path

import psutil

CGROUP_ROOT = Path("/sys/fs/cgroup")
_GROUP_NAME = "verl_pipeline_{pid}_{number}"
# What a run may write beside its memory (standard streams, scratch files), and the kernel's own
# memory for its processes.
EXTRA_BYTES = 512 << 20
# Seconds for the kernel to forget the processes of a jail that has ended; until then rmdir fails.
REMOVE_TIMEOUT_S = 2.0
_JOIN_SCRIPT = (
    'for group in $GROUPS; do echo $$ > "$group/cgroup.procs" || exit; done; unset GROUPS; exec'
    ' "$@"'
)
_group_numbers = itertools.count()


class WorkerCgroups:
    """The control groups of one worker; does nothing if none can be created.

    Args:
        max_tasks: processes and threads in all jails of the worker together.

    Attributes:
        folders: of the groups that could be created, by controller (``memory``, ``pids``).
    """

    def __init__(self, max_tasks: int):
        self.folders: dict[str, Path] = {}
        name = _GROUP_NAME.format(pid=os.getpid(), number=next(_group_numbers))
        for controller, parent in _find_parent_groups().items():
            _remove_stale_groups(parent)
            with contextlib.suppress(OSError):
                folder = parent / name
                folder.mkdir()
                self.folders[controller] = folder
                if controller == "pids":
                    (folder / "pids.max").write_text(str(max_tasks))
        self._memory_limit = 0

    def wrap_command(self, command: list[str]) -> list[str]:
        """Return a command that joins the groups and then executes ``command``."""
        if not self.folders:
            return command
        folders = " ".join(map(str, self.folders.values()))
        return ["/usr/bin/env", f"GROUPS={folders}", "/bin/sh", "-c", _JOIN_SCRIPT, "sh", *command]

    def set_memory_limit(self, memory_bytes: int) -> None:
        """Limit the memory of all programs of the worker together."""
        limit = memory_bytes + EXTRA_BYTES
        folder = self.folders.get("memory")
        if folder is not None and limit != self._memory_limit:
            name = (
                "memory.limit_in_bytes"
                if (folder / "memory.limit_in_bytes").exists()
                else "memory.max"
            )
            (folder / name).write_text(str(limit))
            self._memory_limit = limit

    def remove_groups(self) -> None:
        """Remove the groups; their processes must have ended."""
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        for folder in self.folders.values():
            while folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)


def _find_parent_groups() -> dict[str, Path]:
    """Return the groups that this process is in, by controller."""
    groups: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        for controller in ("memory", "pids"):
            if controller in controllers.split(","):
                groups[controller] = CGROUP_ROOT / controller / path.lstrip("/")
            elif not controllers and controller not in groups:
                group = CGROUP_ROOT / path.lstrip("/")
                with contextlib.suppress(OSError):
                    if controller in (group / "cgroup.subtree_control").read_text().split():
                        groups[controller] = group
    return groups


def _remove_stale_groups(parent: Path) -> None:
    """Remove the groups of processes that have ended."""
    for folder in parent.glob(_GROUP_NAME.format(pid="*", number="*")):
        pid = folder.name.split("_")[-2]
        if not psutil.pid_exists(int(pid)):
            with contextlib.suppress(OSError):
                folder.rmdir()
