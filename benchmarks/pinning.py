"""Gives each pool its own cores, as GPUs would be separate: by the titles of the processes that
compute.

Invariants:
* Pinned are the processes that do a device's work: verl's trainer workers and vLLM's workers.
  Everything else (agent loops, HTTP servers, TransferQueue, Ray) may run anywhere, as it would
  beside a GPU.
* Every thread of a pinned process is pinned, also those it starts later (they inherit it).
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

TRAINER, ROLLOUT = "ray::WorkerDict", "VLLM::Worker"


def pin(processes: Iterable[psutil.Process], trainer: set[int], rollout: set[int]) -> None:
    """Bind the workers among ``processes`` to the cores of their pool; cheap enough to repeat every
    second.
    """
    for process in processes:
        # The kernel keeps 15 characters of a title in the name; the command line holds all of it.
        with contextlib.suppress(psutil.Error, OSError):
            title = " ".join(process.cmdline())
            if title.startswith(TRAINER):
                _pin(process.pid, trainer)
            elif title.startswith(ROLLOUT):
                _pin(process.pid, rollout)


def _pin(pid: int, cores: set[int]) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getaffinity(int(task.name)) != cores:
                os.sched_setaffinity(int(task.name), cores)
