"""Several warm interpreters, lent to one thread each.

Invariants:
* No wait without a deadline; it names what is awaited.
* A broken worker is replaced before it is lent again.
* After :meth:`Sandbox.close`, and when the process ends in order, no process and no file of it is
  left; if the process is killed, its workers end by themselves.
* A forked child has none of its parent's workers: it starts its own.
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

from verl_pipeline.sandbox.launch import Tier
from verl_pipeline.sandbox.outcome import SandboxError
from verl_pipeline.sandbox.worker import Worker


class Sandbox:
    """At most ``workers`` programs at a time.

    Args:
        workers: warm interpreters; they start when first needed.
        tier: how programs are isolated, see :mod:`verl_pipeline.sandbox.launch`.
        queue_s: longest time to wait for a free worker, in seconds.

    Raises:
        ValueError: no such tier.
    """

    def __init__(
        self, workers: int | None = None, tier: str = "namespaces", queue_s: float = 1800.0
    ):
        if tier not in get_args(Tier):
            raise ValueError(f"no isolation tier {tier!r}; there are {', '.join(get_args(Tier))}")
        self.workers = workers or len(os.sched_getaffinity(0))
        self.tier: Tier = tier  # type: ignore[assignment]
        self.queue_s = queue_s
        self.calibration: float | None = None  # of the worker started last; see Worker.calibration
        self._closed = False
        self._begin()
        atexit.register(self.close)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.busy = 0
        self._lock = threading.Lock()
        # None stands for a worker that is not started.
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._free.put(None)

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """A worker for one program.

        Raises:
            SandboxError: none was free in time, or none can be started.
        """
        if self._pid != os.getpid():
            self._begin()
        begin = time.monotonic()
        try:
            worker = self._free.get(timeout=self.queue_s)
        except queue.Empty:
            raise SandboxError(
                f"no sandbox worker was free for {time.monotonic() - begin:.0f} s ({self.workers} "
                "workers, all busy): use more workers or fewer programs at a time"
            ) from None
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if worker is None:
                worker = Worker(self.tier)
                self.calibration = worker.calibration
            with self._lock:
                self.busy += 1
            try:
                yield worker
            finally:
                with self._lock:
                    self.busy -= 1
        finally:
            broken = worker if worker is not None and (worker.broken or self._closed) else None
            try:
                if broken:
                    broken.close()
            finally:
                self._free.put(None if broken else worker)

    def close(self) -> None:
        """End the workers; those in use end when they are given back."""
        self._closed = True
        if self._pid != os.getpid():
            return
        atexit.unregister(self.close)
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._free.get_nowait())
        for worker in idle:
            if worker is not None:
                worker.close()
            self._free.put(None)  # who waits for one is told that there will be none

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
