"""A training step in one line that a person can read, and the shares that it shows.

Invariant: what a mode does not tell is left out, never shown as 0.
"""

from collections.abc import Mapping, Sequence

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.telemetry.records import Span

# Spans of the driver in which the trainer's devices compute.
COMPUTING = (
    "reward",
    "old_log_prob",
    "ref",
    "values",
    "update_critic",
    "update_actor",
)
# Share of a batch's trajectories after which those that are left are its tail.
BODY = 0.9
TRAINER_BUSY = "pipeline/busy/trainer"
ROLLOUT_BUSY = "pipeline/busy/rollout"
TAIL = "pipeline/tail_s"
WAIT = "pipeline/wait_s"
TOKENS_PER_S = "pipeline/trained_tokens_per_s"
# The first that a step has is shown.
_REWARDS = ("filters/before/reward_mean", "critic/score/mean", "critic/rewards/mean")
_STALENESS = ("pipeline/staleness", "training/off_policy/trajectory_staleness/mean")
_MEAN_STALENESS = "pipeline/staleness/mean"
# Of the driver, while it waits for its batch.
_WAITING = ("wait_rollout",)


def compute_step_metrics(
    spans: Sequence[Span],
    start: float,
    end: float,
    *,
    rollout_busy: float | None,
    generated_at: Sequence[float],
    tokens: int,
) -> dict[str, float]:
    """Metrics of the step from ``start`` to ``end``, in seconds.

    Args:
        spans: of the driver.
        rollout_busy: share of the time in which the replicas ran requests; None if nobody knows.
        generated_at: when each trajectory of the batch had been generated, as far as it is known.
        tokens: response tokens of the batch.
    """
    metrics = {
        TRAINER_BUSY: compute_busy_share(spans, start, end),
        WAIT: _sum_inside(spans, _WAITING, start, end),
        TOKENS_PER_S: tokens / max(end - start, 1e-9),
    }
    if rollout_busy is not None:
        metrics[ROLLOUT_BUSY] = rollout_busy
    if (tail := compute_tail(generated_at)) is not None:
        metrics[TAIL] = tail
    return metrics


def compute_busy_share(spans: Sequence[Span], start: float, end: float) -> float:
    """Share of the time from ``start`` to ``end`` in which one of ``spans`` computed.

    Args:
        spans: of one lane; those of one name do not overlap those of another.
    """
    inside = _sum_inside(spans, COMPUTING, start, end)
    return min(1.0, inside / (end - start)) if end > start else 0.0


def _sum_inside(spans: Sequence[Span], names: Sequence[str], start: float, end: float) -> float:
    return sum(
        max(0.0, min(span.end, end) - max(span.start, start))
        for span in spans
        if span.name in names
    )


def compute_tail(ends: Sequence[float]) -> float | None:
    """Seconds from when :data:`BODY` of the trajectories had been generated until all had.

    Args:
        ends: when each was, in seconds; None is returned for fewer than two.
    """
    if len(ends) < 2:
        return None
    ordered = sorted(ends)
    return ordered[-1] - ordered[min(int(BODY * len(ordered)), len(ordered) - 1)]


def describe_step(
    step: int, last_step: int, seconds: float, metrics: Mapping[str, float], eta_s: float | None
) -> str:
    """The line of one step.

    Args:
        seconds: from the end of the step before to its own.
        metrics: of the step, ours and verl's.
        eta_s: until the last step has ended; None if it is not known yet.
    """
    parts = [f"step {step}/{last_step}"]
    for name in _REWARDS:
        if name in metrics:
            parts.append(f"reward {format_decimal(metrics[name], 3)}")
            break
    parts.append(f"{format_decimal(seconds, 1)} s")
    for pool, name in (("trainer", TRAINER_BUSY), ("rollout", ROLLOUT_BUSY)):
        if name in metrics:
            parts.append(f"{pool} busy {format_percent(metrics[name], 0)}")
    if WAIT in metrics:
        parts.append(f"waited {format_decimal(metrics[WAIT], 1)} s")
    if TAIL in metrics:
        parts.append(f"tail {format_decimal(metrics[TAIL], 1)} s")
    for name in _STALENESS:
        if name in metrics:
            parts.append(f"staleness {_show_age(metrics[name])}")
            mean = metrics.get(_MEAN_STALENESS, metrics[name])
            if _show_age(mean) != _show_age(metrics[name]):
                parts[-1] += f" (mean {_show_age(mean)})"
            break
    if TOKENS_PER_S in metrics:
        parts.append(f"{format_decimal(metrics[TOKENS_PER_S], 0, group=True)} tokens/s")
    if metrics.get("filters/skipped_update"):
        parts.append("no update: the filters left nothing")
    if eta_s is not None and step < last_step:
        parts.append(f"ends in {format_duration(eta_s)}")
    return " | ".join(parts)


def _show_age(updates: float) -> str:
    return format_decimal(updates, 1).removesuffix(".0")


def format_duration(seconds: float) -> str:
    """As ``2 d 3 h``, ``3 h 20 min``, ``5 min`` or ``40 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
