"""Deadlines that grow with the machine's load.

Invariant: on an idle machine a deadline is what the test says; a busy machine only makes it longer.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
_POLL_S = 0.02
# A test that hangs has to end within hours on the busiest machine.
LARGEST = 15.0
_RECENT_S = 120.0
# Times and slowdowns of the last _RECENT_S seconds that no later one has exceeded.
_recent: deque[tuple[float, float]] = deque()


def measure_slowdown() -> float:
    """How many times slower than alone a process may be now, at least 1.

    Twice the processes that share a processor: those that want to run at this moment or, if that is
    more, wanted to in the last minute; never less than it has been in the last two minutes, at most
    ``LARGEST``.
    """
    running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
    slowdown = 2.0 * max(running, os.getloadavg()[0]) / (os.cpu_count() or 1)
    now = time.monotonic()
    while _recent and _recent[-1][1] <= slowdown:
        _recent.pop()
    _recent.append((now, slowdown))
    while now - _recent[0][0] > _RECENT_S:
        _recent.popleft()
    return min(max(1.0, _recent[0][1]), LARGEST)


def scale_deadline(seconds: float) -> float:
    """A deadline of ``seconds`` on an idle machine, as seconds on this one."""
    return seconds * measure_slowdown()


def wait_until(condition: Callable[[], Result], seconds: float, what: str) -> Result:
    """Wait until ``condition`` returns something true, which is returned.

    Raises:
        AssertionError: it did not within the scaled deadline; names ``what``.
    """
    start = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - start
        assert waited < scale_deadline(seconds), f"waited {waited:.0f} s for {what}"
        time.sleep(_POLL_S)
    return result
