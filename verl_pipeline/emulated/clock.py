"""Emulated time, which all processes of a run share: seconds of the described cluster.

It passes ``scale`` times faster than real time while an emulated engine works. What real programs
do in between (the control plane) would be as much too slow on the emulated clock, so whoever begins
something says when its causes were there (:meth:`EmulatedClock.begin`): the clock is set back until
the time since then is what the control plane really took, or a set part of it.

Invariants:
* An activity begins after its causes, by the real duration of what lay between (or that part).
* Setting the clock back delays emulated events in real time, and changes none of their emulated
  times.
* Processes of a machine agree: real time is the system's monotonic clock, and what was set back
  lies in one shared file.
"""

import asyncio
import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Words of the shared file: what was set back; when the trainer or the weights, a trajectory, or a
# publication last ended; updates and publications so far; whether the trainer does one, and when
# that ends.
_SET_BACK, _DRIVER, _COMPLETED, _PUBLISHED, _UPDATES, _PUBLICATIONS, _TRAINS, _UNTIL, _WORDS = (
    range(9)
)
# Real seconds that no timer tells apart.
_RESOLUTION_S = 1e-6


@dataclass
class SharedTimes:
    """Emulated times that the processes of a run tell each other.

    Attributes:
        words: of the clock, float64.
        generated: when each trajectory's response ended, float64, [batches, trajectories]; nan
            before.
        rewarded: when its reward is there; known once it has begun.
        lock: held while a word is read and written back.
        is_drained: whether the driver waits for all that samples before it sends weights.
    """

    words: np.ndarray
    generated: np.ndarray
    rewarded: np.ndarray
    lock: Callable[[], AbstractContextManager[None]] = nullcontext
    is_drained: bool = True

    @property
    def driver_time(self) -> float:
        """When the trainer or the weights last ended: the driver does one after the other."""
        return float(self.words[_DRIVER])

    @driver_time.setter
    def driver_time(self, moment: float) -> None:
        self.words[_DRIVER] = moment

    @property
    def published(self) -> float:
        """When the newest weights were there for the replicas to load."""
        return float(self.words[_PUBLISHED])

    def publish(self, moment: float) -> None:
        """The driver has published weights."""
        self.words[_PUBLISHED] = self.driver_time = moment
        self.words[_PUBLICATIONS] += 1

    @contextmanager
    def train(self, until: float, updates: int = 0) -> Iterator[None]:
        """Around what the trainer's devices do until then; ``updates`` of them end with it."""
        self.words[_UNTIL] = until
        self.words[_TRAINS] = 1
        try:
            yield
        finally:
            self.words[_UPDATES] += updates
            self.words[_TRAINS] = 0

    @property
    def updates(self) -> int:
        """That have ended."""
        return int(self.words[_UPDATES])

    @property
    def trains_until(self) -> float | None:
        """When what the trainer does ends; None: it does nothing."""
        return float(self.words[_UNTIL]) if self.words[_TRAINS] else None

    @property
    def newest_version(self) -> int:
        """That has been published; -1 before the first."""
        return int(self.words[_PUBLICATIONS]) - 1

    def is_driver_due(self, now: float) -> bool:
        """Whether a publication or an update could have begun, and the driver is late with it."""
        updates = self.updates
        if self.words[_TRAINS] or updates >= len(self.rewarded):
            return False
        # Of what has no reward yet, the moment is nan.
        return self.newest_version < updates or self.rewarded[updates].max() <= now

    @property
    def frontier(self) -> float:
        """When all that the driver waits for had ended."""
        return max(self.driver_time, self.completed) if self.is_drained else self.driver_time

    @property
    def completed(self) -> float:
        """When the last trajectory that has its reward got it."""
        return float(self.words[_COMPLETED])

    def complete(self, moment: float) -> None:
        """A trajectory has its reward."""
        self.words[_COMPLETED] = max(self.words[_COMPLETED], moment)


def make_times(batches: int, trajectories: int) -> SharedTimes:
    """Times of one process alone."""
    shape = (batches, trajectories)
    return SharedTimes(np.zeros(_WORDS), np.full(shape, np.nan), np.full(shape, np.nan))


def create_times(path: Path, batches: int, trajectories: int, scale: float) -> None:
    """Write the file that :func:`open_times` opens; its clock stands at 0 now."""
    times = make_times(batches, trajectories)
    times.words[_SET_BACK] = time.monotonic() * scale
    arrays = (times.words, times.generated.ravel(), times.rewarded.ravel())
    np.concatenate(arrays).tofile(path)


def open_times(path: Path, batches: int, trajectories: int, is_drained: bool = True) -> SharedTimes:
    """The times of a run; all that open them see each other's."""
    size, shape = batches * trajectories, (batches, trajectories)
    words = np.memmap(path, dtype=np.float64, mode="r+", shape=(_WORDS + 2 * size,))

    @contextmanager
    def take_lock() -> Iterator[None]:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    generated, rewarded = words[_WORDS:].reshape(2, *shape)
    return SharedTimes(words[:_WORDS], generated, rewarded, take_lock, is_drained)


@dataclass(frozen=True)
class EmulatedClock:
    """The clock of a run.

    Attributes:
        scale: emulated seconds in a real one, at least 1.
        times: of the run.
        control_scale: emulated seconds that a real second of the control plane counts.
        read: real seconds since some moment that all processes share.
    """

    scale: float
    times: SharedTimes
    control_scale: float = 1.0
    read: Callable[[], float] = time.monotonic

    def now(self) -> float:
        """This emulated moment."""
        return self.read() * self.scale - float(self.times.words[_SET_BACK])

    def begin(self, caused: float) -> float:
        """Begin something whose causes were there at ``caused``; returns when it begins."""
        with self.times.lock():
            now = self.now()
            if now <= caused:
                return caused
            start = caused + (now - caused) * self.control_scale / self.scale
            self.times.words[_SET_BACK] += now - start
        return start

    def begin_drivers(self) -> float:
        """Begin what the driver asks for after all it waits for; returns when it begins."""
        start = self.times.driver_time = self.begin(self.times.frontier)
        return start

    def count_real(self, until: float) -> float:
        """Real seconds until the emulated moment ``until``, if the clock is not set back."""
        return max((until - self.now()) / self.scale, 0.0)

    def sleep(self, until: float) -> None:
        """Block until the emulated moment ``until``."""
        while (seconds := self.count_real(until)) > 0:
            time.sleep(seconds)

    async def wait(self, until: float) -> None:
        """Let other tasks run until the emulated moment ``until``."""
        while (seconds := self.count_real(until)) > _RESOLUTION_S:
            await asyncio.sleep(seconds)
