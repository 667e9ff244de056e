"""Shared memory of vLLM and verl below ``/dev/shm``, which a killed process leaves behind (hundreds of MB a replica).

Invariant: what a living process has mapped is never called unused.
"""

import re
from pathlib import Path

import psutil

_DIRECTORY = Path("/dev/shm")
_NAMES = re.compile(r"/dev/shm/((?:psm_|verl_weights_|sem\.mp-)\w+)")


def mapped(process: psutil.Process) -> set[Path]:
    """Segments that a process has mapped; none if it has ended or may not be looked at."""
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return set()
    return {_DIRECTORY / name for name in _NAMES.findall(maps)}


def unused() -> set[Path]:
    """Segments that exist and that no process has mapped."""
    existing = {path for path in _DIRECTORY.glob("*") if _NAMES.fullmatch(str(path))}
    return existing - {path for process in psutil.process_iter() for path in mapped(process)}
