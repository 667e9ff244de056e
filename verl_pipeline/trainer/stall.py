"""Stall deadlines: how long a job may wait while nothing ends that it could be queued behind.

A deadline from submission on would fail whatever stands at the end of a long queue: in sampling the
last trajectories of a batch, which are its longest. When a server takes a job nobody tells us. What
can be seen is that jobs end. A server that has a free slot takes the next job at once, so a waiting
job starts at its submission or at the moment when another one ends. Hence:

Invariants:
* A job that waits in a queue is given up only if nothing of that queue has ended for ``seconds``.
  If no job's own work takes ``seconds``, none is lost, however long the queue is.
* A job outside all queues (its own code, a tool) is given up ``seconds`` after its last own step.
* A job that never ends is given up at most ``seconds`` and two checks after the last end in its
  queue, under its name and with that of the queue.
* What was given up is no end: jobs that hang do not excuse one another.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar

from verl_pipeline.trainer.deadlines import DeadlineExceeded

logger = logging.getLogger(__name__)

# Shortest pause between two checks, as a share of the deadline.
CHECK_SHARE = 0.02


def _now() -> float:
    return asyncio.get_running_loop().time()


class QueueEnds:
    """When a job last ended in each queue, as far as this process knows."""

    def __init__(self) -> None:
        # Queue -> seconds on the clock of this process's event loop.
        self._times: dict[str, float] = {}

    def record_end(self, queue: str) -> None:
        """A job of this process has left ``queue`` with an answer, good or bad."""
        self._times[queue] = _now()

    def list_ages(self) -> dict[str, float]:
        """Seconds since the last end, by queue; clocks of several machines need not agree."""
        now = _now()
        return {queue: now - at for queue, at in self._times.items()}

    def learn_ages(self, ages: Mapping[str, float]) -> None:
        """Take in what another process has just listed."""
        now = _now()
        for queue, age in ages.items():
            self._times[queue] = max(self.find_last(queue), now - age)

    def find_last(self, queue: str) -> float:
        """Time of the last known end, or minus infinity."""
        return self._times.get(queue, float("-inf"))


class Job:
    """One job under a stall deadline: where it waits and when it last did something itself."""

    def __init__(self, name: str, ends: QueueEnds):
        self.name = name
        # What it was given up for, in words; None before.
        self.stall: str | None = None
        self._ends = ends
        self._last_step = _now()
        # A job may wait in several queues at a time, and several times in one.
        self._queues: Counter[str] = Counter()

    def enter_queue(self, queue: str) -> None:
        """The job has asked ``queue`` for something."""
        self._last_step = _now()
        self._queues[queue] += 1

    def leave_queue(self, queue: str, *, has_ended: bool) -> None:
        """The job waits there no more.

        Args:
            has_ended: there was an answer; False for a wait that was given up.
        """
        self._last_step = _now()
        self._queues -= Counter([queue])
        if has_ended:
            self._ends.record_end(queue)

    def measure_idle(self) -> float:
        """Seconds since the last sign that this job can still end."""
        ends = map(self._ends.find_last, self._queues)
        return _now() - max([self._last_step, *ends])

    def describe_stall(self) -> str:
        """Where the job is and since when nothing has moved it, in words."""
        where = " and ".join(sorted(self._queues))
        wait = f"it waits for {where}, where nothing ended" if where else "it is in its own code"
        return f"no progress for {self.measure_idle():.0f} s: {wait}"


# The trajectory on whose behalf code runs; tasks that it starts inherit it.
current_job: ContextVar[Job | None] = ContextVar("current_job", default=None)


class StallWatch:
    """Gives up jobs that have stalled.

    Args:
        seconds: the deadline.
        setting: the setting it comes from with its value, for the error.
        ends: where jobs record their ends.
        ask_others: what the other processes that use the same queues have listed (
            :meth:`QueueEnds.list_ages`); called before any job is given up. Processes that do not
            answer within ``seconds`` count as having seen nothing.
    """

    def __init__(
        self,
        seconds: float,
        setting: str,
        ends: QueueEnds,
        ask_others: Callable[[], Awaitable[Iterable[Mapping[str, float]]]],
    ):
        self.seconds = seconds
        self.setting = setting
        self._ends = ends
        self._ask_others = ask_others
        self._scopes: dict[Job, asyncio.Timeout] = {}
        self._task: asyncio.Task | None = None

    @asynccontextmanager
    async def limit(self, name: str) -> AsyncIterator[Job]:
        """Give up the body once its job has stalled.

        Raises:
            DeadlineExceeded: names the job and where it waited; caused by the error that shows
                the line at which the body was interrupted.
        """
        job = Job(name, self._ends)
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes[job] = scope
                if self._task is None or self._task.done():
                    self._task = asyncio.create_task(self._watch_jobs())
                try:
                    yield job
                finally:
                    self._scopes.pop(job, None)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"{name}: {job.stall} ({self.setting})") from error

    async def _watch_jobs(self) -> None:
        while self._scopes:
            if self._find_stalled():
                await self._learn_from_others()
                for job in self._find_stalled():
                    job.stall = job.describe_stall()
                    self._scopes.pop(job).reschedule(_now())
            left = [self.seconds - job.measure_idle() for job in self._scopes]
            await asyncio.sleep(max(min(left, default=0.0), CHECK_SHARE * self.seconds))

    def _find_stalled(self) -> list[Job]:
        return [job for job in self._scopes if job.measure_idle() >= self.seconds]

    async def _learn_from_others(self) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                answers = await self._ask_others()
        except Exception:
            logger.exception("%s: the other processes could not be asked", self.setting)
            return
        for ages in answers:
            self._ends.learn_ages(ages)
