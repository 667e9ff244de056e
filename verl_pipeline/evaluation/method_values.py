"""What a method that makes one answer of several samples achieves, and what it costs.

Invariants:
* Values stand by problem, so that two methods are compared problem by problem.
* A method is compared with a plain vote that generates as many tokens for each problem.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.graded_samples import GradedSamples, make_score
from verl_pipeline.evaluation.store import Row


@dataclass(frozen=True)
class MethodValues:
    """What a method achieves on each problem.

    Attributes:
        name: name for readers.
        rewards: mean reward of the method's answer, by problem.
        tokens: mean number of tokens generated for it, by problem.
        k: samples of an answer.
    """

    name: str
    rewards: dict[str, float]
    tokens: dict[str, float]
    k: int


def count_tokens(graded: GradedSamples, k: int) -> dict[str, float]:
    """Return the mean number of tokens of k samples, by problem."""
    return {
        problem: k * statistics.fmean(row["tokens"] for row in rows)
        for problem, rows in graded.items()
    }


def vote(
    graded: GradedSamples,
    k: int,
    name: str,
    weigh: Callable[[Row], float],
    field: str = "answer",
) -> MethodValues:
    """Return what a vote of k samples achieves, each with the weight that ``weigh`` gives it.

    The reward of a vote is that of the first sample with the winning answer.

    Args:
        field: field of a sample with what it votes for.
    """
    rewards = {}
    for problem, rows in graded.items():
        votes = [(row[field], weigh(row)) for row in rows]
        rewards[problem] = _average_vote(rows, votes, k)
    return MethodValues(name, rewards, count_tokens(graded, k), k)


def _average_vote(rows: Sequence[Row], votes: list[tuple[str | None, float]], k: int) -> float:
    def score_subset(chosen: Sequence[int]) -> float:
        winner = estimators.find_vote_winner([votes[index] for index in chosen])
        return rows[chosen[winner]]["reward"]

    return estimators.average_over_subsets(len(rows), k, score_subset)


def score_method(graded: GradedSamples, method: MethodValues) -> dict[str, Any]:
    """Return the score of a method, its interval and its ``tokens_per_problem``."""
    observations = statistics.fmean(map(len, graded.values())) / method.k
    return make_score(method.rewards.values(), observations) | {
        "tokens_per_problem": statistics.fmean(method.tokens.values())
    }


def measure_gain(graded: GradedSamples, method: MethodValues) -> dict[str, Any]:
    """Return the paired gain of a method over a plain vote that costs as many tokens.

    A plain vote of the same tokens may need a fractional number of samples: its score lies between
    those of the whole numbers beside it.
    """
    plain = {}
    for problem, rows in graded.items():
        mean = statistics.fmean(row["tokens"] for row in rows)
        size = min(float(len(rows)), max(1.0, method.tokens[problem] / mean if mean else 1.0))
        low = math.floor(size + 1e-9)
        votes = [(row["answer"], 1.0) for row in rows]
        plain[problem] = _average_vote(rows, votes, low)
        if size - low > 1e-9:
            above = _average_vote(rows, votes, low + 1)
            plain[problem] += (size - low) * (above - plain[problem])
    samples = max(1.0, statistics.fmean(map(len, graded.values())) / method.k)
    return estimators.estimate_difference(plain, method.rewards, samples).as_dict()
