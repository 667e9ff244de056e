"""The clock of one process, and how far it is from the driver's.

Invariants:
* Times move with the monotonic clock from one reading of the wall clock: a wall clock that jumps
  moves nothing.
* An offset comes with the error that it may have. Between two samples it is linear, so that clocks
  that drift apart are followed.
* A sample of a process that was busy, whose error may be seconds, moves nothing that more certain
  ones tell.
"""

import time
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from verl_pipeline.telemetry.records import ClockSample


class Clock:
    """Seconds since the epoch.

    Args:
        wall, monotonic: what is read, both in seconds.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._monotonic = monotonic
        self._epoch = wall() - monotonic()

    def now(self) -> float:
        """This moment."""
        return self._epoch + self._monotonic()


def estimate_offset(
    ask: Callable[[], float], now: Callable[[], float], rounds: int = 5
) -> ClockSample:
    """How far another process's clock is from this one's.

    The other clock was read at some moment of the round trip. Its middle is at most half of the
    trip away from that moment, so the shortest trip tells most.

    Args:
        ask: returns the other clock's reading.
        now: this clock.
        rounds: round trips, at least 1.
    """
    samples = []
    for _round in range(rounds):
        sent = now()
        theirs = ask()
        received = now()
        middle = (sent + received) / 2
        samples.append(ClockSample(theirs, middle - theirs, (received - sent) / 2))
    return min(samples, key=lambda sample: sample.error_s)


@dataclass(frozen=True)
class ClockFit:
    """What the samples of one process tell.

    Attributes:
        samples: ascending in time.
        error_s: by which an offset at their times may be wrong; 0 without any.
        drift_s: by how much the offset has changed, as far as that exceeds the errors.
    """

    samples: list[ClockSample]

    @property
    def error_s(self) -> float:
        return max((sample.error_s for sample in self.samples), default=0.0)

    @property
    def drift_s(self) -> float:
        offsets = [sample.offset_s for sample in self.samples] or [0.0]
        return max(offsets) - min(offsets)

    def get_offsets(self, times: np.ndarray) -> np.ndarray:
        """Return what is to be added to times of the process, in seconds.

        Args:
            times: float64 [records], NaN where unknown; there it is 0.
        """
        if not self.samples:
            return np.zeros(len(times))
        at = np.array([sample.t for sample in self.samples])
        offsets = np.array([sample.offset_s for sample in self.samples])
        return np.where(np.isnan(times), 0.0, np.interp(np.nan_to_num(times), at, offsets))


def fit_clock(samples: list[ClockSample]) -> ClockFit:
    """Leave out the samples that tell nothing: those whose error, and that of what the more certain
    ones give for their time, allow for the difference between the two. Where a less certain one,
    which does tell something, would move what one that was left out tells, that one is kept, too.
    """
    kept: list[ClockSample] = []
    left_out: list[ClockSample] = []
    ordered = sorted(samples, key=lambda one: (one.error_s, one.t))
    for sample in ordered:
        told = _interpolate(kept, sample.t) if kept else None
        if told is not None and _differ_by(told, sample) <= told.error_s + sample.error_s:
            left_out.append(sample)
            continue
        moved: ClockSample | None = sample
        while moved is not None:
            insort(kept, moved, key=lambda one: one.t)
            moved = _find_moved(kept, left_out, ordered[0].error_s)
            if moved is not None:
                left_out.remove(moved)
    return ClockFit(kept)


def _find_moved(
    kept: list[ClockSample], left_out: list[ClockSample], least_s: float
) -> ClockSample | None:
    """One that the kept ones contradict by more than its error and the most certain one's."""
    for sample in left_out:
        if _differ_by(_interpolate(kept, sample.t), sample) > least_s + sample.error_s:
            return sample
    return None


def _differ_by(one: ClockSample, other: ClockSample) -> float:
    return abs(one.offset_s - other.offset_s)


def _interpolate(samples: list[ClockSample], t: float) -> ClockSample:
    place = bisect_left(samples, t, key=lambda one: one.t)
    before, after = samples[max(place - 1, 0)], samples[min(place, len(samples) - 1)]
    share = (t - before.t) / (after.t - before.t) if after.t > before.t else 1.0
    return ClockSample(
        t,
        before.offset_s + share * (after.offset_s - before.offset_s),
        before.error_s + share * (after.error_s - before.error_s),
    )
