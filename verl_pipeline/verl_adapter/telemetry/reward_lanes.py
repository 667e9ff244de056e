"""When each reward worker grades, recorded in its own process; and who graded which trajectory.

verl picks a worker for each trajectory by ``random.choice`` of its handles.

Invariants:
* What a reward worker computes, returns or raises stays as it is.
* A span ``reward`` covers the time in which a worker has at least one reward to compute. It is cut
  at :data:`LONGEST_SPAN_S`, so that a run that dies still has it.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from verl_pipeline.telemetry.recorder import Recorder
from verl_pipeline.telemetry.records import Pool, Span

LONGEST_SPAN_S = 5.0


def name_lane(position: int) -> str:
    """The lane of a reward worker.

    Args:
        position: its place among the pool's; a successor has that of the one it replaces.
    """
    return f"reward worker {position}"


class WatchedHandles(list):
    """Handles of reward workers; ``note_place`` is told the place of each that is taken."""

    def __init__(self, handles: Iterable[Any], note_place: Callable[[int], None]):
        super().__init__(handles)
        self._note_place = note_place

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, int):
            self._note_place(place)
        return super().__getitem__(place)


class RewardSpans:
    """The time in which this process computes rewards."""

    def __init__(self, recorder: Recorder, lane: str):
        self._recorder, self._lane = recorder, lane
        self._open = self._ended = 0
        self._start = 0.0

    def begin(self) -> None:
        """A reward is asked for."""
        if not self._open:
            self._start = self._recorder.now()
        self._open += 1

    def end(self) -> None:
        """It is computed, or its computation failed."""
        self._open -= 1
        self._ended += 1
        now = self._recorder.now()
        if not self._open or now - self._start > LONGEST_SPAN_S:
            detail = {"rewards": self._ended}
            span = Span(Pool.REWARD, self._lane, "reward", self._start, now, detail=detail)
            self._recorder.add(span)
            self._start, self._ended = now, 0


def record_rewards(worker: Any, recorder: Recorder, position: int) -> None:
    """Let verl's ``RewardLoopWorker``, in its process, record when it grades; again is as once."""
    if hasattr(worker, "reward_spans"):
        return
    worker.reward_spans = spans = RewardSpans(recorder, name_lane(position))
    # Its two ways to a reward; Ray calls the class's own methods, so they cannot be replaced.
    worker.reward_manager.run_single = _record_call(worker.reward_manager.run_single, spans)
    worker.compute_score_disrm = _record_call(worker.compute_score_disrm, spans)


def _record_call(method: Callable, spans: RewardSpans) -> Callable:
    @functools.wraps(method)
    async def recorded(*args: Any, **kwargs: Any) -> Any:
        spans.begin()
        try:
            return await method(*args, **kwargs)
        finally:
            spans.end()

    return recorded
