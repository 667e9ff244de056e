"""Methods that make one answer of several samples: votes and best of k.

Invariant: a scorer sees neither the verdict nor the reward of a sample.
"""

import importlib
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.graded_samples import (
    GradedSamples,
    average_tokens,
    has_logprobs,
    make_score,
)
from verl_pipeline.evaluation.store import Row

# Fields of a sample that a scorer receives; the verdict and the reward are not among them.
SCORER_FIELDS = (
    "id",
    "sample",
    "response",
    "prompt_tokens",
    "tokens",
    "finish",
    "mean_logprob",
    "answer",
    "shown",
)

Scorer = Callable[[Row], float]


def score_methods(
    graded: GradedSamples, votes: list[dict[str, Any]], k: int, scorer: Scorer, scorer_name: str
) -> list[dict[str, Any]]:
    """Return the scores of the methods that make one answer of k samples.

    A method is left out if the samples do not distinguish it: weighted votes need answers and
    log-probs, best of k needs different scores.
    """
    methods = [{"name": f"vote of {vote['k']}", **vote} for vote in votes if vote["k"] > 1]
    if k > 1 and votes and has_logprobs(graded):
        methods.append(
            {
                "name": f"vote of {k} weighted by confidence",
                **score_vote(graded, k, compute_confidence),
            }
        )
    if k > 1 and len({_apply_scorer(row, scorer) for rows in graded.values() for row in rows}) > 1:
        methods.append(
            {"name": f"best of {k} by {scorer_name}", **score_best_of_k(graded, k, scorer)}
        )
    return methods


def score_vote(graded: GradedSamples, k: int, weigh: Scorer) -> dict[str, Any]:
    """Score a vote of k samples, each with the weight that ``weigh`` gives it.

    The reward of a vote is that of the first sample with the winning answer.
    """

    def average_problem(rows: list[Row]) -> float:
        def score_subset(indices: Sequence[int]) -> float:
            chosen = [rows[index] for index in indices]
            votes = [(row["answer"], weigh(row)) for row in chosen]
            return chosen[estimators.find_vote_winner(votes)]["reward"]

        return estimators.average_over_subsets(len(rows), k, score_subset)

    observations = statistics.fmean(map(len, graded.values())) / k
    return make_score(map(average_problem, graded.values()), observations) | {
        "tokens_per_problem": average_tokens(graded) * k
    }


def score_best_of_k(graded: GradedSamples, k: int, scorer: Scorer) -> dict[str, Any]:
    """Score the best of k samples by ``scorer``.

    A sample that fails the tests in the prompt ranks behind all others.
    """
    values = []
    for rows in graded.values():
        scored = [(row["shown"] is not False, _apply_scorer(row, scorer)) for row in rows]
        ranks = {score: rank for rank, score in enumerate(sorted(set(scored)))}
        values.append(
            estimators.estimate_best_of_k(
                [(ranks[score], row["reward"]) for score, row in zip(scored, rows, strict=True)], k
            )
        )
    observations = statistics.fmean(map(len, graded.values())) / k
    return make_score(values, observations) | {"tokens_per_problem": average_tokens(graded) * k}


def _apply_scorer(row: Row, scorer: Scorer) -> float:
    return scorer({field: row[field] for field in SCORER_FIELDS})


def weigh_equally(_row: Row) -> float:
    """Return the weight of a sample in a plain vote."""
    return 1.0


def compute_confidence(row: Row) -> float:
    """Return the geometric mean of the sample's token probabilities; 1 without log-probs."""
    return math.exp(row["mean_logprob"]) if row["mean_logprob"] is not None else 1.0


def load_scorer(name: str) -> Scorer:
    """Return the scorer ``name``: ``mean_logprob``, ``shortest``, or a function by its path.

    The function receives a sample's row with the fields of :data:`SCORER_FIELDS`.

    Raises:
        BadSetting: there is no such scorer, or it does not return a number for an example row.
    """
    if name == "mean_logprob":
        return lambda row: row["mean_logprob"] if row["mean_logprob"] is not None else -math.inf
    if name == "shortest":
        return lambda row: -row["tokens"]
    module, _dot, function = name.rpartition(".")
    example = {
        "id": "",
        "sample": 0,
        "response": "",
        "tokens": 1,
        "finish": "stop",
        "mean_logprob": -1.0,
        "answer": None,
    }
    try:
        scorer = getattr(importlib.import_module(module), function)
        float(scorer({**example, "prompt_tokens": 1, "shown": None}))
    except Exception as error:  # a user's function may raise anything
        raise BadSetting(
            f"scorer={name!r} failed: {error!r}; name mean_logprob, shortest, or the path of a "
            "function that takes a sample's row"
        ) from error
    return scorer
