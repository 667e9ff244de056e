"""Which replica of a pool is slower than the others? No Ray, no engine.

Invariants:
* Replicas are compared at the same load only: a request is slower beside a hundred others, and an
  engine samples fewer tokens of one request than of a hundred. Loads of one class differ by less
  than a factor of two; of the two ways to scale by that, the one that finds less is taken.
* Nothing is said of a replica that ran requests for less than half of the window: it holds nobody
  up. If most of the others are as slow, nothing is said either.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from verl_pipeline.number_formats import format_decimal

# Shares of the window: in which a replica must have run requests, in which it must have had loads
# that others had, too, and in which both must have had a load to be compared at it.
BUSY, SHARED, LEAST = 0.5, 0.2, 0.02


@dataclass(frozen=True)
class Work:
    """What an engine did at loads of one class.

    Attributes:
        seconds: for which it had such a load.
        request_s: the sum over its requests.
        tokens: that it sampled meanwhile.
    """

    seconds: float = 0.0
    request_s: float = 0.0
    tokens: int = 0

    def __sub__(self, other: "Work") -> "Work":
        return Work(
            self.seconds - other.seconds,
            self.request_s - other.request_s,
            self.tokens - other.tokens,
        )


# By class of load: the bit length of the number of running requests.
Works = Mapping[int, Work]


class WorkMeter:
    """Counts what an engine does, since it began.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._running, self._is_paused, self._since = 0, False, clock()
        # At the load since then; this is called for every token of every request.
        self._tokens = 0
        self._works: dict[int, Work] = {}

    def change(self, requests: int) -> None:
        """So many requests begin, or end if it is negative."""
        self._count()
        self._running += requests

    def pause(self, is_paused: bool) -> None:
        """The engine takes no step from now on, or does again."""
        self._count()
        self._is_paused = is_paused

    def sample(self, tokens: int) -> None:
        """So many tokens have come."""
        self._tokens += tokens

    def read(self) -> dict[int, Work]:
        """All so far."""
        self._count()
        return dict(self._works)

    def _count(self) -> None:
        now = self._clock()
        seconds, self._since = now - self._since, now
        tokens, self._tokens = self._tokens, 0
        if not self._running or self._is_paused:
            return
        load = self._running.bit_length()
        before = self._works.get(load, Work())
        self._works[load] = Work(
            before.seconds + seconds,
            before.request_s + seconds * self._running,
            before.tokens + tokens,
        )


@dataclass(frozen=True)
class Slowness:
    """A replica that is slower than the others.

    Attributes:
        factor: how many times the tokens, the median of the others would have sampled in its place.
        tokens_per_s: that it sampled while it was compared.
    """

    replica: str
    factor: float
    tokens_per_s: float

    def describe_factor(self) -> str:
        """Before "the others": ``3.7 times slower than``; ``none, unlike`` if it samples none."""
        if math.isinf(self.factor):
            return "none, unlike"
        return f"{format_decimal(self.factor)} times slower than"


def find_slowest(works: Mapping[str, Works], window_s: float, factor: float) -> Slowness | None:
    """The slowest replica, if it is slower than the median of the others by ``factor`` or more.

    Args:
        works: of each replica, in the last ``window_s``.
    """
    found = [_judge(name, works, window_s) for name in works]
    slowest = max(filter(None, found), key=lambda one: one.factor, default=None)
    return slowest if slowest is not None and slowest.factor >= factor else None


def _judge(name: str, works: Mapping[str, Works], window_s: float) -> Slowness | None:
    own = works[name]
    if sum(work.seconds for work in own.values()) < BUSY * window_s:
        return None
    factors = [
        factor
        for other in works
        if other != name and (factor := _compare(own, works[other], window_s)) is not None
    ]
    if not factors:
        return None
    seconds = sum(work.seconds for work in own.values())
    tokens = sum(work.tokens for work in own.values())
    return Slowness(name, statistics.median(factors), tokens / seconds)


def _compare(own: Works, other: Works, window_s: float) -> float | None:
    """How many times the tokens the other would have sampled; None if nobody can tell."""
    least = LEAST * window_s
    shared = [
        (own[load], other[load])
        for load in own.keys() & other.keys()
        if own[load].seconds >= least and other[load].seconds >= least
    ]
    if sum(mine.seconds for mine, _theirs in shared) < SHARED * window_s:
        return None
    tokens = sum(mine.tokens for mine, _theirs in shared)
    expected = sum(
        theirs.tokens * min(mine.seconds / theirs.seconds, mine.request_s / theirs.request_s)
        for mine, theirs in shared
    )
    return expected / tokens if tokens else (math.inf if expected else None)


class SpeedWatch:
    """Compares the replicas of a pool over the last seconds.

    Args:
        factor: see :func:`find_slowest`.
        window_s: over which they are compared, in seconds.
        clock: seconds that only grow.
    """

    def __init__(self, factor: float, window_s: float, clock: Callable[[], float] = time.monotonic):
        self._factor, self._window_s, self._clock = factor, window_s, clock
        # By replica, when it had done what; the first reading is as old as the window, or older.
        self._readings: dict[str, deque[tuple[float, Works]]] = {}

    def judge(self, works: Mapping[str, Works]) -> Slowness | None:
        """Take in what each replica has done since it began; returns who is too slow.

        A replica is compared once it has been read for a whole window. After a verdict all of them
        are watched anew: the others take over its load.
        """
        now = self._clock()
        self._readings = {name: self._readings.get(name, deque()) for name in works}
        recent = {}
        for name, readings in self._readings.items():
            readings.append((now, works[name]))
            while len(readings) > 1 and readings[1][0] <= now - self._window_s:
                readings.popleft()
            first, before = readings[0]
            if first <= now - self._window_s:
                recent[name] = _subtract(works[name], before)
        slowest = find_slowest(recent, self._window_s, self._factor)
        if slowest is not None:
            self._readings.clear()
        return slowest


def _subtract(works: Works, before: Works) -> dict[int, Work]:
    return {load: work - before.get(load, Work()) for load, work in works.items()}
