"""One rollout replica: continuous batching with slots, prefill, a KV cache and loading of weights.

Every running sequence gains one token a decoding step, so a counter of steps tells all lengths: a
sequence that begins at counter c with n tokens to go ends at c + n. Between two events the counter
runs at a constant rate, hence an event costs O(log slots) whatever the lengths.

Invariants:
* Prefill and loading freeze decoding; they are served one after the other, loading first.
* A trajectory begins only below :data:`WATERMARK` of the KV cache. When the cache is full, the
  newest is preempted, keeps its tokens, and reads its context again when another has ended.
* Times are seconds from the start of the simulation and never go back.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from verl_pipeline.planner.profile import Sampling

# Share of the KV cache that new trajectories fill; the rest is for those that run to grow into.
# Without it one would be preempted for each that ends.
WATERMARK = 0.9


@dataclass(frozen=True)
class Speed:
    """What all replicas of a pool have in common.

    Attributes:
        step_s: seconds of a decoding step by the number of running sequences, 0 to slots.
        prefill_s: seconds a prompt token.
        kv_tokens: tokens that the KV cache holds; infinite: no limit.
        thin: with fewer running sequences the replica is in its tail.
    """

    step_s: tuple[float, ...]
    prefill_s: float
    kv_tokens: float
    thin: float

    @property
    def slots(self) -> int:
        return len(self.step_s) - 1

    @property
    def tokens_per_s(self) -> float:
        """The most that a replica can decode."""
        return max(count / self.step_s[count] for count in range(1, len(self.step_s)))


def make_speed(sampling: Sampling, slots: int, replicas: int) -> Speed:
    """Return the speed of ``replicas`` equal replicas with ``slots`` slots each."""
    steps = (
        (sampling.decode_base_s + sampling.decode_per_sequence_s * count) / sampling.speed
        for count in range(slots + 1)
    )
    return Speed(
        tuple(steps),
        1 / (sampling.prefill_tokens_per_s * sampling.speed),
        sampling.kv_tokens or math.inf,
        min(slots, sampling.trajectories / replicas) / 2,
    )


@dataclass
class Seconds:
    """Where a replica's time went; what is left is idle."""

    sampling: float = 0.0
    tail: float = 0.0
    loading: float = 0.0


@dataclass(eq=False, slots=True)
class Replica:
    """The state of a replica; ``stamp`` counts its changes, so that stale events are known."""

    speed: Speed
    version: int = 0
    now: float = 0.0
    counter: float = 0.0
    load_left: float = 0.0
    prefill_left: float = 0.0
    stamp: int = 0
    begun: int = 0
    seconds: Seconds = field(default_factory=Seconds)
    # (counter at the end, number of its start, trajectory, context tokens then, counter then)
    running: list[tuple[float, int, int, float, float]] = field(default_factory=list)
    # Preempted: (trajectory, tokens to go, context tokens).
    waiting: deque[tuple[int, float, float]] = field(default_factory=deque)
    # Tokens in the KV cache are offset + len(running) * counter.
    offset: float = 0.0

    @property
    def runs_nothing(self) -> bool:
        return not self.running and not self.waiting

    def has_room(self, prompt: float) -> bool:
        """Whether a new trajectory may begin now; never while a preempted one waits."""
        count = len(self.running)
        if count >= self.speed.slots or self.waiting:
            return False
        return count == 0 or self._used() + prompt < WATERMARK * self.speed.kv_tokens

    def begin(self, trajectory: int, tokens: float, context: float) -> None:
        """Begin a trajectory, or go on with a preempted one, at :attr:`now`."""
        self.begun += 1
        entry = (self.counter + tokens, self.begun, trajectory, context, self.counter)
        heappush(self.running, entry)
        self.offset += context - self.counter
        self.prefill_left += context * self.speed.prefill_s

    def load(self, version: int, seconds: float) -> None:
        """Take other weights at :attr:`now`; whatever runs is frozen meanwhile."""
        self.version = version
        self.load_left += seconds

    def advance(self, now: float) -> None:
        """Let time pass until ``now``, which lies before the replica's next event."""
        left, self.now = now - self.now, now
        if self.load_left > 0.0:
            spent = min(left, self.load_left)
            self.load_left -= spent
            self.seconds.loading += spent
            left -= spent
        if not self.running or left <= 0.0:
            return
        if len(self.running) < self.speed.thin:
            self.seconds.tail += left
        else:
            self.seconds.sampling += left
        if self.prefill_left > 0.0:
            spent = min(left, self.prefill_left)
            self.prefill_left -= spent
            left -= spent
        self.counter += left / self.speed.step_s[len(self.running)]

    def find_next(self) -> float:
        """When its next trajectory ends or is preempted, if nothing else happens; else infinity."""
        count = len(self.running)
        if not count:
            return math.inf
        target, _preempts = self._find_target()
        steps = max(target - self.counter, 0.0)
        return self.now + self.load_left + self.prefill_left + steps * self.speed.step_s[count]

    def take_event(self, now: float) -> int | None:
        """Carry out the event that :meth:`find_next` told; return the trajectory that ended."""
        self.advance(now)
        self.counter, preempts = self._find_target()  # exact, whatever the rounding
        self.load_left = self.prefill_left = 0.0
        if preempts:
            self._preempt()
            return None
        _end, _number, trajectory, context, start = heappop(self.running)
        self.offset -= context - start
        if not self.running:
            self.counter = self.offset = 0.0
        while self.waiting and self._fits_again():
            self.begin(*self.waiting.popleft())
        return trajectory

    def _used(self) -> float:
        return self.offset + len(self.running) * self.counter

    def _find_target(self) -> tuple[float, bool]:
        """The counter at the next event, and whether it is a preemption."""
        count, end = len(self.running), self.running[0][0]
        if count > 1 and self.speed.kv_tokens < math.inf:
            full = (self.speed.kv_tokens - self.offset) / count
            if full < end:
                return max(full, self.counter), True
        return end, False

    def _preempt(self) -> None:
        newest = max(self.running, key=lambda entry: entry[1])
        self.running.remove(newest)
        heapify(self.running)
        end, _number, trajectory, context, start = newest
        self.offset -= context - start
        self.waiting.appendleft((trajectory, end - self.counter, context + self.counter - start))

    def _fits_again(self) -> bool:
        count = len(self.running)
        context = self.waiting[0][2]
        return count == 0 or self._used() + context < WATERMARK * self.speed.kv_tokens
