"""Pins the workers of each pool to cores of their own, as if they had separate GPUs.

Invariants:
* The pinned processes are those that do a device's work: verl's trainer workers and vLLM's workers,
  recognized by their titles. Agent loops, HTTP servers, TransferQueue and Ray may run on any core,
  as they would beside a GPU.
* All threads of a pinned process are pinned; threads that it starts later inherit the cores.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

TRAINER_TITLE, ROLLOUT_TITLE = "ray::WorkerDict", "VLLM::Worker"


def pin_workers(
    processes: Iterable[psutil.Process], trainer_cores: set[int], rollout_cores: set[int]
) -> None:
    """Pin the workers among ``processes`` to their pool's cores; cheap enough for every second."""
    for process in processes:
        # A process's name holds only 15 characters of its title; the command line holds all.
        with contextlib.suppress(psutil.Error, OSError):
            title = " ".join(process.cmdline())
            if title.startswith(TRAINER_TITLE):
                _pin_threads(process.pid, trainer_cores)
            elif title.startswith(ROLLOUT_TITLE):
                _pin_threads(process.pid, rollout_cores)


def _pin_threads(pid: int, cores: set[int]) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getaffinity(int(task.name)) != cores:
                os.sched_setaffinity(int(task.name), cores)
