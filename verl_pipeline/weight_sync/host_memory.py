"""Whether a machine has room for the versions of weights that it is to hold.

Invariant: nothing is allocated to find out.
"""

import os
from pathlib import Path

import psutil

from verl_pipeline.weight_sync.buckets import WeightSyncError

SHARED_MEMORY = "/dev/shm"
_CGROUP = Path("/sys/fs/cgroup")


def check_host_memory(bytes_per_version: int, versions: int) -> None:
    """Check that this machine has room for ``versions`` versions of the weights.

    Args:
        bytes_per_version: bytes of the weights, in the dtype that they travel in.
        versions: most versions at a time.

    Raises:
        WeightSyncError: it has not; with the bytes, the versions, the limit and what to change.
    """
    needed = bytes_per_version * versions
    limits = {
        f"{SHARED_MEMORY} has {{}} free: enlarge it (Docker's --shm-size)": measure_shared_memory(),
        "this machine has {} free: use one with more": measure_free_memory(),
    }
    for words, free in limits.items():
        if needed > free:
            raise WeightSyncError(
                f"{versions} versions of the weights of {_format(bytes_per_version)} each need "
                f"{_format(needed)} of host memory for each rollout node, and "
                f"{words.format(_format(free))}, or lower trainer.v1.one_off_pipeline.staleness"
            )


def measure_shared_memory() -> int:
    """Free bytes of ``/dev/shm``."""
    room = os.statvfs(SHARED_MEMORY)
    return room.f_bavail * room.f_frsize


def measure_free_memory() -> int:
    """Bytes that this machine, or the container around this process, can still give."""
    free = psutil.virtual_memory().available
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, max(int(limit) - used, 0))


def _format(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 1 << 30 else f"{nbytes / 2**20:.1f} MiB"
