"""Tells if (nearly) no sample held an answer: a score of 0 % then says nothing about the model.

The usual cause is a prompt that asks for another form of answer than the grader reads.

Invariant: a grader that says whether it found an answer is believed; of a training's reward
function, which cannot say it, rewards that are all 0 or less count as no answer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from verl_pipeline.evaluation.graded_samples import GradedSamples
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.grading import Verdict

# Below this share of samples with an answer there is a caveat. No score exceeds the share, so
# below it the score shows the form of the responses. A convention, not a measurement.
MIN_ANSWERED_SHARE = 0.1
# Characters of a response's end that a caveat shows.
_SHOWN_CHARACTERS = 100
_SOUGHT = {
    "code": "a complete ```python block after the last </think>",
    "math": "\\boxed{...} after the last </think>",
}
_FIXES = {
    "code": "ask for such a block, or set style=prefill for a model that does not think",
    "math": "ask for \\boxed{} in the prompt (system=...); if a run's own prompts ask for another "
    "form, let its own reward grade (options.parquet.grader=verl, or its function)",
}
_REWARD_FIX = (
    "compare the form that the prompt asks for with the one that the function reads, and the "
    "function with the training's"
)


def count_answers(graded: GradedSamples, items: Sequence[TaskItem]) -> list[dict[str, Any]]:
    """Return for each grader of the task how many samples hold an answer that it reads.

    ``grader``; ``samples``; ``answered``: those with an answer, or with a positive reward of a
    training; ``cut_off``: those without an answer that were cut off; ``example``: the end of a
    response without an answer, or None.
    """
    graders = {item.id: item.grader for item in items}
    by_grader: dict[str, list[Row]] = {}
    for name, rows in graded.items():
        by_grader.setdefault(graders[name], []).extend(rows)
    counts = []
    for grader, rows in by_grader.items():
        missing = [row for row in rows if not _has_answer(grader, row)]
        counts.append(
            {
                "grader": grader,
                "samples": len(rows),
                "answered": len(rows) - len(missing),
                "cut_off": sum(row["finish"] == "length" for row in missing),
                "example": missing[0]["response"][-_SHOWN_CHARACTERS:] if missing else None,
            }
        )
    return counts


def _has_answer(grader: str, row: Row) -> bool:
    if grader == "code":
        return row["verdict"] != Verdict.NO_CODE
    if grader == "math":
        return row["answer"] is not None
    return row["training_reward"] > 0 or row["reward"] > 0


def describe_missing_answers(counts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a text for each grader that found (nearly) no answer.

    Args:
        counts: as of :func:`count_answers`.
    """
    for row in counts:
        grader, samples, answered = row["grader"], row["samples"], row["answered"]
        if grader in _SOUGHT:
            has_answers = answered >= MIN_ANSWERED_SHARE * samples
            start = (
                f"{answered} of {samples} samples hold an answer that the grader {grader} reads, "
                f"which is {_SOUGHT[grader]}"
            )
        else:
            has_answers = answered > 0
            start = (
                f"the reward of {grader} is 0 or less for all {samples} samples, as if it read "
                "another form of answer than the responses have"
            )
        if has_answers:
            continue
        fix = _FIXES.get(grader, _REWARD_FIX)
        if 2 * row["cut_off"] > samples - answered:
            fix = f"{row['cut_off']} responses were cut off: raise sampling.max_tokens; else {fix}"
        yield f"NO ANSWERS: {start}; one response ends in {row['example']!r}; {fix}"
