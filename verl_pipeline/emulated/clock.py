"""Emulated time: seconds of the described cluster, ``scale`` of which pass in one real second.

Invariant: every process of a machine that knows the scale reads the same time: it follows from the
system's monotonic clock alone.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class EmulatedClock:
    """The clock of a run.

    Attributes:
        scale: emulated seconds in a real one, above 0.
        read: real seconds since some moment that all processes share.
    """

    scale: float
    read: Callable[[], float] = time.monotonic

    def now(self) -> float:
        """Emulated seconds since that moment."""
        return self.read() * self.scale

    def count_real(self, until: float) -> float:
        """Real seconds until the emulated moment ``until``; 0 if it has passed."""
        return max(until / self.scale - self.read(), 0.0)

    def sleep(self, until: float) -> None:
        """Block until the emulated moment ``until``."""
        if (seconds := self.count_real(until)) > 0:
            time.sleep(seconds)

    async def wait(self, until: float) -> None:
        """Let other tasks run until the emulated moment ``until``."""
        if (seconds := self.count_real(until)) > 0:
            await asyncio.sleep(seconds)
