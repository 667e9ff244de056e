"""The rows of the acceptance table.

Invariants:
* A row passes only if something was compared; what could not be looked at is ``unchecked``, with
  the reason.
* A row that fails says what was found and what was expected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeGuard

from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.acceptance.plan import Plan

_SHOWN_FAULTS = 3
ENDED_EARLY = "the run ended before it could be checked; see the row run"


class Verdict(StrEnum):
    """What a check says."""

    PASSED = "pass"
    FAILED = "FAIL"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        detail: what was seen, with its figures; of a failure what was expected, too.
        fix: what to do about a failure.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


def judge(name: str, faults: Sequence[str], is_complete: bool, detail: str, fix: str) -> Row:
    """A failure if there are faults; ``unchecked`` if not everything was there to be compared."""
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        text = "; ".join(faults[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        return Row(name, Verdict.FAILED, text, fix)
    if not is_complete:
        return Row(name, Verdict.UNCHECKED, ENDED_EARLY)
    return Row(name, Verdict.PASSED, detail)


def has_all_steps(outcome: Outcome, plan: Plan) -> bool:
    """Whether the metrics of every step are there."""
    return set(range(1, plan.steps + 1)) <= set(outcome.run.metrics)


def has_all_batches(outcome: Outcome, plan: Plan) -> bool:
    """Whether trajectories of every step are there, too."""
    steps = {record["step"] for record in outcome.run.trajectories}
    return has_all_steps(outcome, plan) and set(range(1, plan.steps + 1)) <= steps


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a metric is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
