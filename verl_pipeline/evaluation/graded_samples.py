"""Graded samples of one task: samples joined with their verdicts, and their counts.

Invariant: only samples with a reward are graded samples; failed and ungraded ones are counted.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.store import Row

# Rows by problem id, in the order of samples; each row joins a sample and its verdict.
GradedSamples = dict[str, list[Row]]


def join_verdicts(samples: Iterable[Row], verdicts: dict[tuple[str, int], Row]) -> GradedSamples:
    """Return the samples that have a reward, joined with their verdicts."""
    graded: GradedSamples = defaultdict(list)
    for row in sorted(samples, key=lambda row: (row["id"], row["sample"])):
        verdict = verdicts.get((row["id"], row["sample"]))
        if verdict is not None and verdict["reward"] is not None:
            graded[row["id"]].append({**row, **verdict})
    return dict(graded)


def group_rewards(graded: GradedSamples) -> dict[str, list[float]]:
    """Return the rewards by problem."""
    return {name: [row["reward"] for row in rows] for name, rows in graded.items()}


def is_binary(graded: GradedSamples) -> bool:
    """Whether every reward is 0 or 1, so that a sample is right or wrong."""
    return all(row["reward"] in (0.0, 1.0) for rows in graded.values() for row in rows)


def group_training_rewards(graded: GradedSamples) -> dict[str, list[float]]:
    """Return by problem the rewards that a training would learn from."""
    return {
        name: [row["training_reward" if "training_reward" in row else "reward"] for row in rows]
        for name, rows in graded.items()
    }


def count_samples(
    requests: Sequence[object], samples: Sequence[Row], graded: GradedSamples
) -> dict[str, int]:
    """Return sample counts; ``failed``: not generated; ``infrastructure``: not graded."""
    return {
        "expected": len(requests),
        "samples": len(samples),
        "failed": len(requests) - len(samples),
        "infrastructure": len(samples) - sum(map(len, graded.values())),
        "truncated": sum(row["finish"] == "length" for row in samples),
    }


def count_verdicts(graded: GradedSamples) -> dict[str, int]:
    """Return the number of samples by verdict, the most frequent first."""
    return dict(Counter(row["verdict"] for rows in graded.values() for row in rows).most_common())


def average_tokens(graded: GradedSamples) -> float:
    """Return the tokens per sample: the mean over problems of each problem's mean."""
    return statistics.fmean(
        statistics.fmean(row["tokens"] for row in rows) for rows in graded.values()
    )


def has_logprobs(graded: GradedSamples) -> bool:
    """Whether every sample has log-probs."""
    return all(row["mean_logprob"] is not None for rows in graded.values() for row in rows)


def make_score(values: Iterable[float], observations_per_problem: float) -> dict[str, Any]:
    """Return the mean over problems with its interval, in the form of ``results.json``.

    Args:
        values: one mean reward per problem.
        observations_per_problem: independent observations behind each value; at least 1 is assumed.
    """
    observations = max(1.0, observations_per_problem)
    return estimators.estimate_proportion(list(values), observations).as_dict()
