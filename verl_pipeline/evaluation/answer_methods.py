"""Methods that make one answer of several samples: votes and best of k.

Invariant: a scorer sees neither the verdict nor the reward of a sample.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.behaviours import BEHAVIOUR, has_behaviours
from verl_pipeline.evaluation.confidence_methods import (
    ConfidenceWindows,
    has_token_confidences,
    list_confidence_methods,
)
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.graded_samples import GradedSamples, has_logprobs
from verl_pipeline.evaluation.method_values import (
    MethodValues,
    count_tokens,
    measure_gain,
    score_method,
    vote,
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
    graded: GradedSamples,
    votes: list[dict[str, Any]],
    k: int,
    scorer: Scorer,
    scorer_name: str,
    windows: ConfidenceWindows | None = None,
) -> list[dict[str, Any]]:
    """Return the scores of the methods that make one answer of k samples.

    A method is left out if the samples do not distinguish it: weighted votes need answers and
    log-probs, votes by behaviour programs that ran, best of k different scores. ``gain`` is the
    paired gain over a plain vote of as many tokens.
    """
    entries = [{"name": f"vote of {row['k']}", **row} for row in votes if row["k"] > 1]
    methods: list[MethodValues] = []
    if k > 1 and votes:
        if has_logprobs(graded):
            name = f"vote of {k} weighted by confidence"
            methods.append(vote(graded, k, name, compute_confidence))
        if windows is not None and has_token_confidences(graded):
            methods += list_confidence_methods(graded, k, windows)
        if has_behaviours(graded):
            name, field = f"vote of {k} by behaviour", BEHAVIOUR
            methods.append(vote(graded, k, name, weigh_equally, field))
            if has_logprobs(graded):
                name += " weighted by confidence"
                methods.append(vote(graded, k, name, compute_confidence, field))
    if k > 1 and len({_apply_scorer(row, scorer) for rows in graded.values() for row in rows}) > 1:
        methods.append(_choose_best(graded, k, f"best of {k} by {scorer_name}", scorer))
    for method in methods:
        gain = {"gain": measure_gain(graded, method)} if votes else {}
        entries.append({"name": method.name, **score_method(graded, method), **gain})
    return entries


def score_vote(graded: GradedSamples, k: int, weigh: Scorer) -> dict[str, Any]:
    """Score a vote of k samples, each with the weight that ``weigh`` gives it."""
    return score_method(graded, vote(graded, k, "", weigh))


def score_best_of_k(graded: GradedSamples, k: int, scorer: Scorer) -> dict[str, Any]:
    """Score the best of k samples by ``scorer``.

    A sample that fails the tests in the prompt ranks behind all others.
    """
    return score_method(graded, _choose_best(graded, k, "", scorer))


def _choose_best(graded: GradedSamples, k: int, name: str, scorer: Scorer) -> MethodValues:
    rewards = {}
    for problem, rows in graded.items():
        scored = [(row["shown"] is not False, _apply_scorer(row, scorer)) for row in rows]
        ranks = {score: rank for rank, score in enumerate(sorted(set(scored)))}
        rewards[problem] = estimators.estimate_best_of_k(
            [(ranks[score], row["reward"]) for score, row in zip(scored, rows, strict=True)], k
        )
    return MethodValues(name, rewards, count_tokens(graded, k), k)


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
