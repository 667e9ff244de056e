"""Shared memory of vLLM and verl below ``/dev/shm``, which a killed process leaves behind (hundreds
of MB a replica).

Invariant: called unused is only this user's memory that no process that can be looked at has mapped
for :data:`GRACE_S` seconds since it was made.
"""

import contextlib
import os
import re
import time
from pathlib import Path

import psutil

# Between making a segment and mapping it.
GRACE_S = 5.0
_DIRECTORY = Path("/dev/shm")
_NAMES = re.compile(r"/dev/shm/((?:psm_|verl_weights_|sem\.mp-)\w+)")


def find_mapped_segments(process: psutil.Process) -> set[Path]:
    """Segments that a process has mapped; none if it has ended or may not be looked at."""
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return set()
    return {_DIRECTORY / name for name in _NAMES.findall(maps)}


def list_segments(min_age_s: float = 0.0) -> set[Path]:
    """This user's segments that were made at least ``min_age_s`` seconds ago."""
    segments = set()
    for path in _DIRECTORY.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            is_old = time.time() - status.st_mtime >= min_age_s
            if _NAMES.fullmatch(str(path)) and status.st_uid == os.getuid() and is_old:
                segments.add(path)
    return segments


def find_unused_segments() -> set[Path]:
    """This user's segments that no process has mapped."""
    return list_segments(GRACE_S) - {
        path for process in psutil.process_iter() for path in find_mapped_segments(process)
    }
