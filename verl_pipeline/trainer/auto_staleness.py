"""``staleness=auto``: from what the last steps took, how far the next ones run ahead.

A batch that is submitted s steps before its update is sampled beside the s updates between. If
that takes longer, the trainer waits. So the smallest staleness that is enough is the one for which
a batch's latency is at most about s steps without waiting; beyond it data is only older.

A value is judged by :data:`WINDOW` batches that were submitted exactly so many steps ahead:

* The effective sample size is too small: one less, and no more than that from now on.
* The trainer waited for too large a share: one more. If a step then takes as long as before, the
  pool's rate is the limit, which no staleness moves: one less again, and no more from now on.
* The batches were complete so early that one step less would have been enough: one less.

Invariants:
* The staleness stays within its bounds, and changes by one at a time.
* "From now on" is :data:`RETRY_AFTER` steps, and for as long a value that made the trainer wait is
  not gone back to, unless for the first two reasons. So it does not swing between two values.
"""

from dataclasses import dataclass, replace

from verl_pipeline.number_formats import format_percent

WINDOW = 3
RETRY_AFTER = 50
# A batch counts as early if it was complete this share of the time before it was needed.
MARGIN = 0.1


@dataclass(frozen=True)
class Bounds:
    """What the user allows.

    Attributes:
        least, most: staleness.
        wait_share: of a step that the trainer may wait for its batch, 0 to 1.
        effective_share: smallest effective sample size, of the tokens, 0 to 1.
    """

    least: int
    most: int
    wait_share: float
    effective_share: float


@dataclass(frozen=True)
class StepTimes:
    """One step.

    Attributes:
        lead: steps from the submission of its batch to it.
        wait_s: seconds that the trainer waited for the batch.
        work_s: the rest of the step, in seconds; above 0.
        latency_s: seconds from the submission of the batch to its last reward.
        effective_share: of the batch's importance weights; None if unknown.
    """

    lead: int
    wait_s: float
    work_s: float
    latency_s: float
    effective_share: float | None


@dataclass(frozen=True)
class Limit:
    """A bound that holds until a step."""

    staleness: int
    until: int


@dataclass(frozen=True)
class AutoStaleness:
    """The decision's memory.

    Attributes:
        staleness: for the batches to come.
        steps: so far.
        seen: of the batches that this staleness is judged by.
        ceiling, floor: found by trying.
        slowness: step over work at the value from which it was raised to this one; None once that
            has been compared.
    """

    staleness: int
    steps: int = 0
    seen: tuple[StepTimes, ...] = ()
    ceiling: Limit | None = None
    floor: Limit | None = None
    slowness: float | None = None


def turn(state: AutoStaleness, step: StepTimes, bounds: Bounds) -> tuple[AutoStaleness, str | None]:
    """After a step: the new state and, if the staleness changes, why."""
    seen = (*state.seen, step)[-WINDOW:] if step.lead == state.staleness else state.seen
    now = state.steps + 1
    state = replace(state, steps=now, seen=seen)
    if len(seen) < WINDOW:
        return state, None
    s = state.staleness
    known = [one.effective_share for one in seen if one.effective_share is not None]
    effective = sum(known) / len(known) if known else 1.0
    if effective < bounds.effective_share:
        reason = (
            f"the effective sample size is {format_percent(effective, 0)} of the tokens, below "
            f"min_effective_share={bounds.effective_share:g}"
        )
        return _lower_for_good(state, reason, bounds)
    wait, work = (sum(getattr(one, name) for one in seen) for name in ("wait_s", "work_s"))
    share, slowness = wait / (wait + work), (wait + work) / work
    if share > bounds.wait_share:
        # One more step ahead shortens a step that waits by 1/s.
        if state.slowness is not None and slowness > state.slowness * (1 - 0.5 / s):
            reason = "running further ahead did not shorten the step: the pool's rate is the limit"
            return _lower_for_good(state, reason, bounds)
        if s >= _read(state.ceiling, now, bounds.most):
            return replace(state, slowness=None), None
        reason = (
            f"the trainer waited for {format_percent(share, 0)} of the last {WINDOW} steps, above "
            f"auto_staleness.wait_share={bounds.wait_share:g}"
        )
        floor = Limit(s + 1, now + RETRY_AFTER)
        return replace(state, staleness=s + 1, seen=(), floor=floor, slowness=slowness), reason
    latest, shortest = max(one.latency_s for one in seen), min(one.work_s for one in seen)
    if s <= _read(state.floor, now, bounds.least) or latest > (1 - MARGIN) * (s - 1) * shortest:
        return replace(state, slowness=None), None
    reason = f"the last {WINDOW} batches were complete more than a step before they were needed"
    return replace(state, staleness=s - 1, seen=(), slowness=None), reason


def _lower_for_good(
    state: AutoStaleness, reason: str, bounds: Bounds
) -> tuple[AutoStaleness, str | None]:
    if state.staleness <= bounds.least:
        return state, None
    lower = state.staleness - 1
    ceiling = Limit(lower, state.steps + RETRY_AFTER)
    lowered = replace(state, staleness=lower, seen=(), ceiling=ceiling, floor=None, slowness=None)
    return lowered, reason


def _read(limit: Limit | None, now: int, otherwise: int) -> int:
    return limit.staleness if limit is not None and now <= limit.until else otherwise
