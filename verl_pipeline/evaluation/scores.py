"""Estimates the scores of one task from its graded samples.

Invariants:
* Scores cover graded samples only; the numbers of failed and ungraded samples stand beside them.
* Every score has an interval over problems; scores of methods also have their cost in tokens.
* pass@1, pass@k, votes and budgets count right samples, so they exist only if every reward is 0 or
  1. ``mean_reward`` exists if a training's rewards differ from these numbers; it may be any number.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.answer_methods import (
    Scorer,
    score_methods,
    score_vote,
    weigh_equally,
)
from verl_pipeline.evaluation.confidence_methods import ConfidenceWindows
from verl_pipeline.evaluation.graded_samples import (
    GradedSamples,
    average_tokens,
    group_rewards,
    group_training_rewards,
    is_binary,
    make_score,
)
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import TaskItem

LENGTH_BINS = 24
SMALLEST_BUDGET = 64


def estimate_scores(
    graded: GradedSamples,
    items: Sequence[TaskItem],
    scorer: Scorer,
    scorer_name: str,
    windows: ConfidenceWindows | None = None,
) -> dict[str, Any]:
    """Return all scores of a task; their keys are those of ``results.json``.

    No k exceeds the number of samples of any problem, so that all scores cover the same problems.
    """
    rows = [row for problem_rows in graded.values() for row in problem_rows]
    if not graded or not is_binary(graded):
        return {
            "pass@1": None,
            "mean_reward": _average_training_rewards(graded) if graded else None,
            "pass@k": [],
            "cons@k": [],
            "budget": [],
            "methods": [],
            "lengths": _summarize_lengths(rows) if graded else None,
            "breakdown": {},
        }
    rewards = group_rewards(graded)
    means = {name: statistics.fmean(values) for name, values in rewards.items()}
    mean_samples = statistics.fmean(map(len, rewards.values()))
    sizes = estimators.list_powers_up_to(min(map(len, rewards.values())))
    votes = (
        [{"k": k} | score_vote(graded, k, weigh_equally) for k in sizes] if _can_vote(rows) else []
    )
    passes = (
        [estimators.estimate_pass_at_k(len(v), round(sum(v)), k) for v in rewards.values()]
        for k in sizes
    )
    pass_at_1 = make_score(means.values(), mean_samples)
    return {
        "pass@1": pass_at_1,
        "mean_reward": (
            _average_training_rewards(graded) if group_training_rewards(graded) != rewards else None
        ),
        "pass@k": [
            {"k": k} | make_score(values, mean_samples / k)
            for k, values in zip(sizes, passes, strict=True)
        ],
        "cons@k": votes,
        "budget": _score_budgets(graded, mean_samples),
        "methods": [
            {"name": "one sample", **pass_at_1, "tokens_per_problem": average_tokens(graded)},
            *score_methods(graded, votes, sizes[-1], scorer, scorer_name, windows),
        ],
        "lengths": _summarize_lengths(rows),
        "breakdown": _break_down_scores(means, mean_samples, items),
    }


def _can_vote(rows: Sequence[Row]) -> bool:
    """Whether the graders know the samples' answers: most reward functions report none."""
    answers = [row["answer"] for row in rows if "training_reward" in row]
    return not answers or any(answer is not None for answer in answers)


def _average_training_rewards(graded: GradedSamples) -> dict[str, Any]:
    means = map(statistics.fmean, group_training_rewards(graded).values())
    return estimators.estimate_mean(list(means)).as_dict()


def _score_budgets(graded: GradedSamples, mean_samples: float) -> list[dict[str, Any]]:
    """Return pass@1 at token budgets: responses longer than the budget count as wrong.

    This is a lower bound for a run with that limit; it is exact unless a cut-off response contains
    its answer already.
    """
    longest = max(row["tokens"] for rows in graded.values() for row in rows)
    scores = []
    budget = SMALLEST_BUDGET
    while longest > 0:
        within = (
            [row["reward"] * (row["tokens"] <= budget) for row in rows] for rows in graded.values()
        )
        score = make_score(map(statistics.fmean, within), mean_samples)
        scores.append({"tokens": budget} | score)
        if budget >= longest:
            break
        budget *= 2
    return scores


def _summarize_lengths(rows: Sequence[Row]) -> dict[str, Any] | None:
    tokens = [row["tokens"] for row in rows]
    longest = max(tokens)
    if not longest:
        return None
    width = math.ceil((longest + 1) / LENGTH_BINS)
    bins = [
        {"low": low, "high": low + width, "count": 0, "accepted": 0}
        for low in range(0, longest + 1, width)
    ]
    for row in rows:
        row_bin = bins[row["tokens"] // width]
        row_bin["count"] += 1
        row_bin["accepted"] += row["reward"] == 1.0
    return {
        "mean": statistics.fmean(tokens),
        "median": statistics.median(tokens),
        "p95": estimators.compute_quantile(tokens, 0.95),
        "max": longest,
        "histogram": bins,
    }


def _break_down_scores(
    means: dict[str, float], mean_samples: float, items: Sequence[TaskItem]
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        for tag, value in item.tags.items():
            if item.id in means:
                groups[tag][value].append(means[item.id])
    return {
        tag: [
            {
                "name": value,
                "problems": len(tagged_means),
                **make_score(tagged_means, mean_samples),
            }
            for value, tagged_means in sorted(values.items())
        ]
        for tag, values in groups.items()
        if len(values) > 1
    }
