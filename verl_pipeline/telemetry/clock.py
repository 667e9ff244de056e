"""The clock of one process, and how far it is from the driver's.

Invariants:
* Times move with the monotonic clock from one reading of the wall clock: a wall clock that jumps
  moves nothing.
* An offset comes with the error that it may have.
"""

import time
from collections.abc import Callable

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
