"""Chooses which right answers of a problem the student is trained on.

Invariants:
* The choice depends on the answers alone: another call chooses the same.
* No two chosen answers of a problem are the same program, whatever their layout and comments.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from verl_pipeline.evaluation.graders import make_program_key
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.recipes.deepcoder.distillation.distill_config import SelectionConfig
from verl_pipeline.recipes.deepcoder.distillation.teacher_answers import Answer

_WORDS = re.compile(r"\w+|[^\w\s]")


def select_answers(answers: Iterable[Answer], config: SelectionConfig) -> list[Answer]:
    """Return at most ``config.per_problem`` answers of each problem, problem by problem."""
    by_problem: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_problem[answer.problem].append(answer)
    chosen = []
    for problem in sorted(by_problem):
        different = _drop_copies(by_problem[problem])
        if config.keep == "diverse":
            different = _order_by_difference(different)
        chosen += different[: config.per_problem]
    return chosen


def _drop_copies(answers: Sequence[Answer]) -> list[Answer]:
    """Return the shortest answer of each program, the shortest first; ties go to the first."""
    ordered = sorted(answers, key=lambda answer: (answer.tokens, answer.sample))
    first_by_key = {_make_key(answer): answer for answer in reversed(ordered)}
    return [answer for answer in ordered if first_by_key[_make_key(answer)] is answer]


def _make_key(answer: Answer) -> str:
    """Return what equal programs share; an answer without one is known by its words."""
    return make_program_key(answer.response) or " ".join(answer.response.split())


def _order_by_difference(answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers, each the one that is least like the most similar one before it."""
    words = {answer: _list_words(answer) for answer in answers}
    ordered, left = list(answers[:1]), list(answers[1:])
    while left:
        farthest = min(
            left, key=lambda answer: max(_compare(words[answer], words[one]) for one in ordered)
        )
        ordered.append(farthest)
        left.remove(farthest)
    return ordered


def _list_words(answer: Answer) -> frozenset[str]:
    return frozenset(_WORDS.findall(extract_last_program(answer.response) or answer.response))


def _compare(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets of words."""
    union = one | other
    return len(one & other) / len(union) if union else 1.0
