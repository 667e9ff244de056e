"""Warns if (nearly) no sample held an answer: a score of 0 % then says nothing about the model.

The usual cause is a prompt that asks for another form of answer than the grader reads.

Invariant: a grader that says whether it found an answer is believed; of a training's reward
function, which cannot say it, rewards that are all 0 or less count as no answer.
"""

from collections.abc import Iterator, Sequence

from verl_pipeline.evaluation.graded_samples import GradedSamples
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.grading import Verdict

# Below this share of samples with an answer there is a warning. No score exceeds the share, so
# below it the score shows the form of the responses. A convention, not a measurement.
MIN_ANSWERED_SHARE = 0.1
# Every warning of this module begins with it.
MARK = "NO ANSWERS"
# Characters of a response's end that a warning shows.
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


def describe_missing_answers(graded: GradedSamples, items: Sequence[TaskItem]) -> list[str]:
    """Return a warning for each grader of the task that found (nearly) no answer."""
    graders = {item.id: item.grader for item in items}
    by_grader: dict[str, list[Row]] = {}
    for name, rows in graded.items():
        by_grader.setdefault(graders[name], []).extend(rows)
    return [text for grader, rows in by_grader.items() for text in _describe(grader, rows)]


def _describe(grader: str, rows: Sequence[Row]) -> Iterator[str]:
    if grader in _SOUGHT:
        missing = [row for row in rows if not _has_answer(grader, row)]
        found = len(rows) - len(missing)
        if found >= MIN_ANSWERED_SHARE * len(rows):
            return
        start = (
            f"{found} of {len(rows)} samples hold an answer that the grader {grader} reads, which "
            f"is {_SOUGHT[grader]}"
        )
        fix = _FIXES[grader]
    else:
        missing = list(rows)
        if any(row["training_reward"] > 0 or row["reward"] > 0 for row in rows):
            return
        start = (
            f"the reward of {grader} is 0 or less for all {len(rows)} samples, as if it read "
            "another form of answer than the responses have"
        )
        fix = _REWARD_FIX
    cut = sum(row["finish"] == "length" for row in missing)
    if 2 * cut > len(missing):
        fix = f"{cut} responses were cut off: raise sampling.max_tokens; else {fix}"
    end = missing[0]["response"][-_SHOWN_CHARACTERS:]
    yield f"{MARK}: {start}; one response ends in {end!r}; {fix}"


def _has_answer(grader: str, row: Row) -> bool:
    return row["verdict"] != Verdict.NO_CODE if grader == "code" else row["answer"] is not None
