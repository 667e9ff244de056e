"""Shared memory of vLLM and verl below ``/dev/shm``, which a killed process leaves behind (hundreds
of MB a replica).

Invariant: a segment counts as unused only if this user owns it, it is older than :data:`GRACE_S`
seconds, and no visible process has mapped it.
"""

import contextlib
import os
import re
import time
from pathlib import Path

import psutil

from verl_pipeline.leftovers import SEGMENT_NAME

# Between making a segment and mapping it.
GRACE_S = 5.0
DIRECTORY = Path("/dev/shm")
# How to get more of it.
ADVICE = (
    "Docker and Podman: --shm-size=16g or --ipc=host; Kubernetes: an emptyDir with medium: "
    "Memory at /dev/shm; elsewhere: sudo mount -o remount,size=16g /dev/shm"
)
_MAPPED_SEGMENT = re.compile(rf"/dev/shm/({SEGMENT_NAME.pattern})")


def find_mapped_segments(process: psutil.Process) -> set[Path]:
    """Segments that a process has mapped; none if it has ended or may not be looked at."""
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return set()
    return {DIRECTORY / name for name in _MAPPED_SEGMENT.findall(maps)}


def list_segments(min_age_s: float = 0.0) -> set[Path]:
    """This user's segments that were made at least ``min_age_s`` seconds ago."""
    segments = set()
    for path in DIRECTORY.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            is_old = time.time() - status.st_mtime >= min_age_s
            if SEGMENT_NAME.fullmatch(path.name) and status.st_uid == os.getuid() and is_old:
                segments.add(path)
    return segments


def find_unused_segments() -> set[Path]:
    """This user's segments that no process has mapped."""
    return list_segments(GRACE_S) - {
        path for process in psutil.process_iter() for path in find_mapped_segments(process)
    }
