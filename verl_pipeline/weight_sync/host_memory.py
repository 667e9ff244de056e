"""Whether a machine has room for the versions of weights that it is to hold.

Invariant: nothing is allocated to find out.
"""

from pathlib import Path

import psutil

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.weight_sync.buckets import WeightSyncError

_CGROUP = Path("/sys/fs/cgroup")
# What to change where there is too little.
ADVICE = (
    "use nodes with more of it, or set trainer.v1.one_off_pipeline.weight_sync_mode=drained, which "
    "keeps none"
)


def check_host_memory(bytes_per_version: int, versions: int) -> None:
    """Check that this machine has room for ``versions`` versions of the weights.

    Args:
        bytes_per_version: bytes of the weights, in the dtype that they travel in.
        versions: most versions at a time.

    Raises:
        WeightSyncError: it has not; with the bytes, the versions, the limit and what to change.
    """
    needed, free = bytes_per_version * versions, measure_free_memory()
    if needed > free:
        raise WeightSyncError(
            f"{versions} versions of the weights of {format_bytes(bytes_per_version)} each need "
            f"{format_bytes(needed)} of host memory, of which {format_bytes(free)} are free: "
            f"{ADVICE}"
        )


def measure_free_memory() -> int:
    """Bytes that this machine, or the container around this process, can still give."""
    free = psutil.virtual_memory().available
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        fields = (_CGROUP / "memory.stat").read_text().split()
        # Pages of files that the kernel gives up when memory is asked for.
        used -= int(fields[fields.index("inactive_file") + 1])
    except (OSError, ValueError, IndexError):  # no cgroup of its own, or none of version 2
        return free
    return free if limit == "max" else min(free, max(int(limit) - used, 0))


def format_bytes(nbytes: int) -> str:
    """``nbytes`` in words, in binary units."""
    size, unit = (nbytes / 2**30, "GiB") if nbytes >= 1 << 30 else (nbytes / 2**20, "MiB")
    return f"{format_decimal(size, 1)} {unit}"
