"""The sandbox: a pool of warm interpreters, each lent to one thread at a time.

Invariants:
* Every wait has a deadline, and its error names what it waited for.
* A broken worker is replaced before it is lent again.
* After :meth:`Sandbox.close`, and after a regular exit of the process, no process and no file of
  the pool is left; if the process is killed, its workers end by themselves.
* A forked child uses none of its parent's workers: it starts its own.
"""

import atexit
import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from verl_pipeline.sandbox.launch_command import Tier
from verl_pipeline.sandbox.run_outcome import SandboxError
from verl_pipeline.sandbox.sandbox_worker import SandboxWorker


class Sandbox:
    """Runs at most ``workers`` programs at a time.

    Args:
        workers: number of warm interpreters; each starts when first needed.
        tier: how programs are isolated, see :mod:`verl_pipeline.sandbox.launch_command`.
        queue_s: longest time to wait for a free worker, in seconds.
        hash_seed: ``PYTHONHASHSEED`` of the programs; grading uses 0. What prints otherwise under
            another seed depends on the order of a set.

    Raises:
        ValueError: there is no such tier.
    """

    def __init__(
        self,
        workers: int | None = None,
        tier: str = "namespaces",
        queue_s: float = 1800.0,
        hash_seed: int = 0,
    ):
        if tier not in get_args(Tier):
            raise ValueError(f"no isolation tier {tier!r}; use one of {', '.join(get_args(Tier))}")
        self.workers = workers or len(os.sched_getaffinity(0))
        self.tier: Tier = tier  # type: ignore[assignment]
        self.queue_s = queue_s
        self._hash_seed = hash_seed
        # Of the worker that started last; see SandboxWorker.calibration.
        self.calibration: float | None = None
        self._is_closed = False
        self._reset_pool()
        atexit.register(self.close)

    def _reset_pool(self) -> None:
        self._pid = os.getpid()
        self.busy_workers = 0
        self._lock = threading.Lock()
        # None stands for a worker that has not been started.
        self._free_workers: queue.LifoQueue[SandboxWorker | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._free_workers.put(None)

    @contextmanager
    def lend_worker(self) -> Iterator[SandboxWorker]:
        """Lend a worker for one program.

        Raises:
            SandboxError: no worker became free in time, or none can be started.
        """
        if self._pid != os.getpid():  # a forked child
            self._reset_pool()
        begin = time.monotonic()
        try:
            worker = self._free_workers.get(timeout=self.queue_s)
        except queue.Empty:
            raise SandboxError(
                f"no sandbox worker was free for {time.monotonic() - begin:.0f} s ({self.workers} "
                "workers, all busy): use more workers or fewer programs at a time"
            ) from None
        try:
            if self._is_closed:
                raise SandboxError("the sandbox is closed")
            if worker is None:
                worker = SandboxWorker(self.tier, self._hash_seed)
                self.calibration = worker.calibration
            with self._lock:
                self.busy_workers += 1
            try:
                yield worker
            finally:
                with self._lock:
                    self.busy_workers -= 1
        finally:
            ended = worker if worker is not None and (worker.is_broken or self._is_closed) else None
            try:
                if ended:
                    ended.close()
            finally:
                self._free_workers.put(None if ended else worker)

    def check_start(self) -> None:
        """Start one worker, so that a failure shows before there is anything to grade.

        Raises:
            SandboxError: no worker can be started.
        """
        with self.lend_worker():
            pass

    def close(self) -> None:
        """End the workers; those that are lent end when they are returned."""
        self._is_closed = True
        if self._pid != os.getpid():
            return
        atexit.unregister(self.close)
        free_workers = []
        with contextlib.suppress(queue.Empty):
            while True:
                free_workers.append(self._free_workers.get_nowait())
        for worker in free_workers:
            if worker is not None:
                worker.close()
            # Wakes a thread that waits for a worker; it then finds the sandbox closed.
            self._free_workers.put(None)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
