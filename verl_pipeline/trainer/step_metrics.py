"""One step's metrics: verl's names keep the meaning that they have in verl's ``sync`` mode.

Invariants:
* What the schedule does inside a timer of verl's (a drain before a checkpoint, weights sent before
  a validation) is taken out of that timer and has a name of its own.
* A batch that was sampled during the step before has no ``timing_s/gen``: taking it out of the
  store is not generation.
* A rate per token divides by the tokens that were worked on, whatever filters dropped since and
  whatever verl padded.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

STEP = "step"
OWN_TIMERS = "pipeline/timing_s"
_WEIGHT_SYNC = "pipeline/weight_sync"


class StepClock:
    """Seconds of the schedule's events since the step began, by verl's timer that ran meanwhile."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}
        self._around = STEP

    def restart(self) -> None:
        """A step begins."""
        self._seconds = {}

    @contextmanager
    def inside(self, timer: str) -> Iterator[None]:
        """Events happen while verl's ``timer`` runs."""
        before, self._around = self._around, timer
        try:
            yield
        finally:
            self._around = before

    @property
    def events(self) -> dict[str, float]:
        """Where the events of this moment are timed: by name, in seconds."""
        return self._seconds.setdefault(self._around, {})

    def split(
        self, timers: Mapping[str, float], *, is_sampled_ahead: bool
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Separate what verl's timers mean from what the schedule adds.

        Args:
            timers: verl's timers of the step, in seconds.
            is_sampled_ahead: whether the batch was complete before the step asked for it.

        Returns:
            Timers with the meaning that verl's ``sync`` gives them, and our metrics
            (``pipeline/timing_s/...``), in seconds.
        """
        kept, ours = dict(timers), {}
        for around, events in self._seconds.items():
            for event, seconds in events.items():
                if around != STEP:
                    ours[f"{OWN_TIMERS}/{around}/{event}"] = seconds
                    # No timer if an error or the end of the run came first.
                    if around in kept:
                        kept[around] -= seconds
                elif event == "update_weights":
                    kept[event] = seconds
                else:
                    ours[f"{OWN_TIMERS}/{event}"] = seconds
        if is_sampled_ahead and "gen" in kept:
            ours[f"{OWN_TIMERS}/collect"] = kept.pop("gen")
        return kept, ours


def add_weight_sync(metrics: dict[str, Any], sync: Mapping[str, float]) -> None:
    """Add one weight sync to a step's ``metrics``: a step with a validation may have two.

    ``pipeline/weight_sync/*`` are sums; what a weight engine of verl's reports is of the last sync.
    """
    for name, value in sync.items():
        is_sum = name.startswith(f"{_WEIGHT_SYNC}/")
        metrics[name] = metrics.get(name, 0.0) + value if is_sum else value


def correct_token_rates(
    metrics: dict[str, Any], *, sampled_tokens: int, padding_tokens: int
) -> None:
    """Make verl's rates per token mean the same with filters and padding as without.

    Args:
        metrics: verl's metrics of the step; changed in place.
        sampled_tokens: response tokens that were generated, those of dropped rows included.
        padding_tokens: tokens of the rows that verl added to fill a mini-batch.
    """
    if "timing_per_token_ms/gen" in metrics and sampled_tokens:
        metrics["timing_per_token_ms/gen"] = 1000 * metrics["timing_s/gen"] / sampled_tokens
    total = metrics.get("perf/total_num_tokens", 0)
    if padding_tokens and total:
        metrics["perf/total_num_tokens"] = total - padding_tokens
        metrics["perf/throughput"] *= 1 - padding_tokens / total
