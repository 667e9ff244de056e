"""When does a rollout server count as dead? No Ray, no network.

Invariants:
* A dead process or engine is a verdict at once; silence only after :data:`MISSES` unanswered checks
  in a row, the first and the last of them at least ``silent_s`` apart.
* Any answer ends a silence.
"""

import time
from collections.abc import Callable
from enum import Enum, auto

# One stall may well span two checks.
MISSES = 3


class Sign(Enum):
    """What one check of a server saw."""

    ALIVE = auto()
    # It did not answer in time, or says that it is not well; its process may live.
    SILENT = auto()
    # Its process or its engine is known to be dead.
    DEAD = auto()


class ServerWatch:
    """Judges one server by the signs of its checks.

    Args:
        silent_s: shortest silence that counts as death, in seconds.
        clock: seconds that only grow.
    """

    def __init__(self, silent_s: float, clock: Callable[[], float] = time.monotonic):
        self._silent_s = silent_s
        self._clock = clock
        self._misses = 0
        self._first_miss = 0.0

    def judge(self, sign: Sign) -> str | None:
        """Take in one check.

        Returns:
            Why the server counts as dead, as the end of a sentence about it; None if it does not.
        """
        if sign is Sign.DEAD:
            return "is dead"
        if sign is Sign.ALIVE:
            self._misses = 0
            return None
        now = self._clock()
        if not self._misses:
            self._first_miss = now
        self._misses += 1
        silence = now - self._first_miss
        if self._misses < MISSES or silence < self._silent_s:
            return None
        return f"has not answered {self._misses} checks in a row, over {silence:.0f} s"
