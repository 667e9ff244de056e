"""Which validation samples count: a failure of the grader says nothing about the policy.

Invariants:
* A sample without a reward, or with the verdict ``infrastructure``, is left out of every mean and
  counted. verl's count of the answers it expects (a missing one is an ``acc`` of 0) is reduced by
  it.
* A value beside the reward that is not a finite number, where others of its key are numbers, is
  left out of that key's means and counted under its name. verl would turn one NaN into a mean of
  NaN.
* verl's statistics cover each quantity once: a ``score`` that repeats the reward is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.trainer.batch import compute_verdict_shares
from verl_pipeline.trainer.reward_value import is_reward, read_reward

PREFIX = "pipeline/validation"
VERSION = f"{PREFIX}/version"
# verl compares these with each other, whatever they are.
_ANY_VALUE = ("pred",)


@dataclass(frozen=True)
class GradedSamples:
    """The samples of a validation that a grader could judge.

    Attributes:
        rows: their positions among all samples.
        values: by key, one value a sample; None where it reports none.
        expected: answers that verl expects, by data source and prompt.
        metrics: ``pipeline/validation/ungraded`` (samples left out); for each key with values left
            out, ``pipeline/validation/values/<key>``; and of all samples
            ``pipeline/validation/<grader>/verdict/<verdict>``.
        first_reason: why the first sample was left out, if a grader said so.
    """

    rows: list[int]
    values: dict[str, list[Any]]
    expected: dict[tuple[str, str], int] | None
    metrics: dict[str, float]
    first_reason: str | None


def is_validated(step: int, frequency: int, last_step: int) -> bool:
    """Whether verl validates after this step: every ``trainer.test_freq`` steps, and at the end."""
    return frequency > 0 and (step >= last_step or step % frequency == 0)


def select_graded(
    data_sources: Sequence[str],
    uids: Sequence[str],
    values: dict[str, list[Any]],
    expected: dict[tuple[str, str], int] | None,
) -> GradedSamples:
    """Leave out what no grader could judge.

    Args:
        data_sources, uids: data source and prompt of each sample.
        values: as verl collects them: ``reward``, and by key what the reward function reported.
        expected: answers that verl expects, by data source and prompt.
    """
    verdicts = values.get("verdict", [None] * len(uids))
    graded = [is_reward(reward) for reward in values["reward"]]
    rows = [row for row in range(len(uids)) if graded[row] and verdicts[row] != INFRASTRUCTURE]
    left_out = sorted(set(range(len(uids))) - set(rows))
    metrics = {f"{PREFIX}/ungraded": float(len(left_out))}
    metrics |= compute_verdict_shares(_list_reports(values), PREFIX)
    left = dict(expected) if expected is not None else None
    for row in left_out:
        key = (str(data_sources[row]), str(uids[row]))
        if left is not None and key in left:
            left[key] -= 1
    kept: dict[str, list[Any]] = {}
    for name, column in values.items():
        kept[name], unusable = _clean_column(name, [column[row] for row in rows])
        if unusable:
            metrics[f"{PREFIX}/values/{name}"] = float(unusable)
    if kept.get("score") == kept["reward"]:
        del kept["score"]
    reasons = values.get("reason", [])
    first = next((str(reasons[row]) for row in left_out if row < len(reasons)), None)
    return GradedSamples(rows, kept, left, metrics, first)


def _list_reports(values: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The reports of the samples, one dict each."""
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _clean_column(name: str, column: list[Any]) -> tuple[list[Any], int]:
    """``column`` with None for what is no number among numbers; and how many those are."""
    given = [value for value in column if value is not None]
    if name in _ANY_VALUE or all(isinstance(value, str) for value in given):
        return column, 0
    numbers = [read_reward(value) if is_reward(value) else None for value in column]
    unusable = len(given) - sum(number is not None for number in numbers)
    return numbers, unusable
