"""A rollout replica that serves requests as they come, with pauses, aborts and other weights.

The planner's replica tells what a running request costs; this adds the queue in front of it and
what the control plane may ask for. Who loads weights pauses it meanwhile.

Invariants:
* A request begins when it has a slot and room in the KV cache, first come first served.
* Events happen at their own emulated time, however late the caller is: lateness never adds up.
* An aborted request tells how many tokens it has; whoever resumes it pays for its context again.
* A paused replica keeps its requests, tokens and cache, and its time stands still.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace

from verl_pipeline.planner.replica import Replica, Speed


@dataclass
class Request:
    """One request.

    Attributes:
        tokens: still to decode, emulated.
        context: tokens to read first: prompt and what was decoded before an abort.
        marks: by change of weights, the version before it and the tokens decoded by then.
    """

    tokens: float
    context: float
    marks: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class EmulatedReplica:
    """One replica; callers give times that never go back."""

    speed: Speed
    is_dead: bool = False
    is_paused: bool = False
    _state: Replica = field(init=False)
    _requests: dict[int, Request] = field(default_factory=dict)
    _queue: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._state = Replica(self.speed)

    @property
    def running(self) -> int:
        """Requests that decode."""
        return len(self._state.running)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot or for room, preempted ones included."""
        return len(self._queue) + len(self._state.waiting)

    def submit(self, number: int, request: Request, now: float) -> list[tuple[int, float]]:
        """Take a request at ``now``; returns what ended until then."""
        ended = self.advance(now)
        self._requests[number] = request
        self._queue.append(number)
        self._begin_waiting()
        return ended

    def find_next(self) -> float:
        """When the next event is, if nothing else happens; infinity if there is none."""
        return math.inf if self.is_paused or self.is_dead else self._state.find_next()

    def advance(self, now: float) -> list[tuple[int, float]]:
        """Let time pass until ``now``.

        Returns:
            The requests that have ended, with their emulated times.
        """
        ended = []
        while (event := self.find_next()) <= now:
            number = self._state.take_event(event)
            if number is not None:
                del self._requests[number]
                ended.append((number, event))
            self._begin_waiting()
        if self.is_paused or self.is_dead:
            self._state.now = max(now, self._state.now)
        elif now > self._state.now:
            self._state.advance(now)
        return ended

    def pause(self, now: float) -> list[tuple[int, float]]:
        """Freeze all requests; returns what ended until ``now``."""
        ended = self.advance(now)
        self.is_paused = True
        return ended

    def resume(self, now: float) -> None:
        """Let the requests go on."""
        self.advance(now)
        self.is_paused = False
        self._begin_waiting()

    def abort(self, now: float) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """Give up all requests.

        Returns:
            What ended until ``now``; and the aborted requests, with the tokens that each still had
            to decode.
        """
        ended = self.advance(now)
        state, left = self._state, self._find_left()
        state.running.clear()
        state.waiting.clear()
        state.counter = state.offset = state.prefill_left = 0.0
        self._queue.clear()
        self._requests.clear()
        return ended, sorted(left.items())

    def mark_version(self, version: int) -> None:
        """Note in all requests that ``version`` decodes no more of their tokens."""
        for number, left in self._find_left().items():
            request = self._requests[number]
            request.marks.append((version, request.tokens - left))

    def _find_left(self) -> dict[int, float]:
        """By request, the tokens that it still has to decode."""
        state = self._state
        left = {entry[2]: entry[0] - state.counter for entry in state.running}
        left |= {trajectory: tokens for trajectory, tokens, _context in state.waiting}
        return left | {number: self._requests[number].tokens for number in self._queue}

    def slow_down(self, factor: float, now: float) -> list[tuple[int, float]]:
        """Be ``factor`` times slower from ``now`` on; returns what ended until then."""
        ended = self.advance(now)
        self.speed = self._state.speed = replace(
            self.speed,
            step_s=tuple(factor * seconds for seconds in self.speed.step_s),
            prefill_s=factor * self.speed.prefill_s,
        )
        self._state.prefill_left *= factor
        return ended

    def _begin_waiting(self) -> None:
        if self.is_paused or self.is_dead:
            return
        while self._queue:
            request = self._requests[self._queue[0]]
            if not self._state.has_room(request.context):
                return
            self._state.begin(self._queue.popleft(), request.tokens, request.context)
