"""Scores of one task, from its samples and verdicts: what ``results.json`` says of it.

Invariants:
* Only samples with a reward count; how many have none, and why, stands beside every score.
* Every score has its interval over problems and, where methods are compared, its cost in tokens.
"""

import importlib
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.config import BadSetting
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import Item

BINS = 24
# What a scorer may see of a sample.
SEEN = (
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
LEAST_BUDGET = 64

Graded = dict[str, list[Row]]  # by problem, in the order of samples: sample and verdict in one row
Scorer = Callable[[Row], float]


def join(samples: Iterable[Row], verdicts: dict[tuple[str, int], Row]) -> Graded:
    """Samples that have a reward, with their verdicts."""
    graded: Graded = defaultdict(list)
    for row in sorted(samples, key=lambda row: (row["id"], row["sample"])):
        verdict = verdicts.get((row["id"], row["sample"]))
        if verdict is not None and verdict["reward"] is not None:
            graded[row["id"]].append({**row, **verdict})
    return dict(graded)


def rewards_of(graded: Graded) -> dict[str, list[float]]:
    """Rewards by problem."""
    return {name: [row["reward"] for row in rows] for name, rows in graded.items()}


def scores(
    graded: Graded, items: Sequence[Item], scorer: Scorer, scorer_name: str
) -> dict[str, Any]:
    """Everything that is estimated; see :mod:`verl_pipeline.evaluation.results` for the fields.

    No k exceeds the samples of any problem: all figures rest on the same problems.
    """
    if not graded:
        return {
            "pass@1": None,
            "pass@k": [],
            "cons@k": [],
            "budget": [],
            "methods": [],
            "lengths": None,
            "breakdown": {},
        }
    rewards = rewards_of(graded)
    means = {name: statistics.fmean(values) for name, values in rewards.items()}
    each = statistics.fmean(map(len, rewards.values()))
    sizes = estimators.powers_up_to(min(map(len, rewards.values())))
    rows = [row for sampled in graded.values() for row in sampled]
    votes = [{"k": k} | voted(graded, k, _one_each) for k in sizes]
    passes = (
        [estimators.pass_at_k(len(v), round(sum(v)), k) for v in rewards.values()] for k in sizes
    )
    one = _proportion(means.values(), each) | {"tokens_per_problem": tokens_each(graded)}
    return {
        "pass@1": _proportion(means.values(), each),
        "pass@k": [
            {"k": k} | _proportion(values, each / k)
            for k, values in zip(sizes, passes, strict=True)
        ],
        "cons@k": votes,
        "budget": _budgets(graded, each),
        "methods": [
            {"name": "one sample", **one},
            *_methods(graded, votes, sizes[-1], scorer, scorer_name),
        ],
        "lengths": _lengths(rows),
        "breakdown": _breakdown(means, each, items),
    }


def _methods(
    graded: Graded, votes: list[dict[str, Any]], k: int, scorer: Scorer, scorer_name: str
) -> list[dict[str, Any]]:
    """Ways to make one answer of several samples, each with its tokens a problem; none that has
    nothing to go by.
    """
    found = [{"name": f"vote of {vote['k']}", **vote} for vote in votes if vote["k"] > 1]
    if k > 1 and have_logprobs(graded):
        found.append(
            {"name": f"vote of {k} weighted by confidence", **voted(graded, k, confidence)}
        )
    if k > 1 and len({_score(row, scorer) for rows in graded.values() for row in rows}) > 1:
        found.append({"name": f"best of {k} by {scorer_name}", **best(graded, k, scorer)})
    return found


def voted(graded: Graded, k: int, weigh: Scorer) -> dict[str, Any]:
    """A vote over k samples, each with its weight; the first sample with the winning answer stands
    for it.
    """

    def of_problem(rows: list[Row]) -> float:
        def of_subset(indices: Sequence[int]) -> float:
            chosen = [rows[index] for index in indices]
            return chosen[estimators.vote([(row["answer"], weigh(row)) for row in chosen])][
                "reward"
            ]

        return estimators.over_subsets(len(rows), k, of_subset)

    each = statistics.fmean(map(len, graded.values())) / k
    return _proportion(map(of_problem, graded.values()), each) | {
        "tokens_per_problem": tokens_each(graded) * k
    }


def best(graded: Graded, k: int, scorer: Scorer) -> dict[str, Any]:
    """The best-scored of k samples; one whose shown tests fail comes after all others."""
    values = []
    for rows in graded.values():
        scored = [(row["shown"] is not False, _score(row, scorer)) for row in rows]
        ranks = {score: rank for rank, score in enumerate(sorted(set(scored)))}
        values.append(
            estimators.best_of_k(
                [(ranks[score], row["reward"]) for score, row in zip(scored, rows, strict=True)], k
            )
        )
    each = statistics.fmean(map(len, graded.values())) / k
    return _proportion(values, each) | {"tokens_per_problem": tokens_each(graded) * k}


def _score(row: Row, scorer: Scorer) -> float:
    """The scorer may not see how a sample was graded."""
    return scorer({field: row[field] for field in SEEN})


def confidence(row: Row) -> float:
    """Geometric mean of the sampled tokens' probabilities; of a sample without log-probs, 1."""
    return math.exp(row["mean_logprob"]) if row["mean_logprob"] is not None else 1.0


def scorer_of(name: str) -> Scorer:
    """A scorer by name, or a function of a sample's row (:data:`SEEN`) by its path.

    Raises:
        BadSetting: there is none, or it makes no number of a row.
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
    except Exception as error:  # it is the user's code
        raise BadSetting(
            f"scorer={name!r}: mean_logprob, shortest, or a function of a sample's row by its path "
            f"({error!r})"
        ) from error
    return scorer


def counts(asked: Sequence[object], samples: Sequence[Row], graded: Graded) -> dict[str, int]:
    """How many of what; ``failed``: not answered; ``infrastructure``: answered, but not graded."""
    return {
        "expected": len(asked),
        "samples": len(samples),
        "failed": len(asked) - len(samples),
        "infrastructure": len(samples) - sum(map(len, graded.values())),
        "truncated": sum(row["finish"] == "length" for row in samples),
    }


def verdict_counts(graded: Graded) -> dict[str, int]:
    """Samples by verdict, the most frequent first."""
    return dict(Counter(row["verdict"] for rows in graded.values() for row in rows).most_common())


def _one_each(_row: Row) -> float:
    return 1.0


def _proportion(values: Iterable[float], each: float) -> dict[str, Any]:
    return estimators.proportion_interval(list(values), max(1.0, each)).as_dict()


def tokens_each(graded: Graded) -> float:
    """Tokens of one sample: the mean over problems of each problem's mean."""
    return statistics.fmean(
        statistics.fmean(row["tokens"] for row in rows) for rows in graded.values()
    )


def have_logprobs(graded: Graded) -> bool:
    """Whether every sample has a confidence."""
    return all(row["mean_logprob"] is not None for rows in graded.values() for row in rows)


def _budgets(graded: Graded, each: float) -> list[dict[str, Any]]:
    """pass@1 if a response of more than so many tokens had no answer: a lower bound for a run with
    that limit, equal to it unless a response that is cut off holds its answer already.
    """
    longest = max(row["tokens"] for rows in graded.values() for row in rows)
    found = []
    budget = LEAST_BUDGET
    while longest > 0:
        within = (
            [row["reward"] * (row["tokens"] <= budget) for row in rows] for rows in graded.values()
        )
        found.append({"tokens": budget} | _proportion(map(statistics.fmean, within), each))
        if budget >= longest:
            break
        budget *= 2
    return found


def _lengths(rows: Sequence[Row]) -> dict[str, Any] | None:
    tokens = [row["tokens"] for row in rows]
    longest = max(tokens)
    if not longest:
        return None
    width = math.ceil((longest + 1) / BINS)
    bins = [
        {"low": low, "high": low + width, "count": 0, "accepted": 0}
        for low in range(0, longest + 1, width)
    ]
    for row in rows:
        found = bins[row["tokens"] // width]
        found["count"] += 1
        found["accepted"] += row["reward"] == 1.0
    return {
        "mean": statistics.fmean(tokens),
        "median": statistics.median(tokens),
        "p95": estimators.quantile(tokens, 0.95),
        "max": longest,
        "histogram": bins,
    }


def _breakdown(
    means: dict[str, float], each: float, items: Sequence[Item]
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        for tag, value in item.tags.items():
            if item.id in means:
                groups[tag][value].append(means[item.id])
    return {
        tag: [
            {"name": value, "problems": len(of), **_proportion(of, each)}
            for value, of in sorted(values.items())
        ]
        for tag, values in groups.items()
        if len(values) > 1
    }
