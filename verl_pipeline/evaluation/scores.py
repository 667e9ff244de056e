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

from verl_pipeline.evaluation import statistics as estimate
from verl_pipeline.evaluation.config import BadSetting
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import Item

BINS = 24
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


def scores(graded: Graded, items: Sequence[Item], scorer: Scorer) -> dict[str, Any]:
    """Everything that is estimated; see :mod:`verl_pipeline.evaluation.results` for the fields."""
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
    most = max(map(len, rewards.values()))
    rows = [row for sampled in graded.values() for row in sampled]
    return {
        "pass@1": _proportion(means.values()),
        "pass@k": [
            {"k": k}
            | _proportion(estimate.pass_at_k(len(v), round(sum(v)), k) for v in rewards.values() if len(v) >= k)
            for k in estimate.powers_up_to(most)
        ],
        "cons@k": [{"k": k} | voted(graded, k, _one_each) for k in estimate.powers_up_to(most)],
        "budget": _budgets(graded),
        "methods": methods(graded, scorer),
        "lengths": _lengths(rows),
        "breakdown": _breakdown(means, items),
    }


def methods(graded: Graded, scorer: Scorer) -> list[dict[str, Any]]:
    """Ways to make one answer of all samples, each with its tokens a problem."""
    most = max(map(len, graded.values()))
    single = {"name": "one sample", **_proportion(statistics.fmean(v) for v in rewards_of(graded).values())}
    found = [single | {"tokens_per_problem": _tokens(graded) / max(1, most)}]
    if most > 1:
        found += [{"name": f"vote of {k}", **voted(graded, k, _one_each)} for k in estimate.powers_up_to(most) if k > 2]
        if _have_logprobs(graded):
            found.append({"name": f"vote of {most} weighted by confidence", **voted(graded, most, confidence)})
        found.append({"name": f"best of {most}", **best(graded, most, scorer)})
    return found


def voted(graded: Graded, k: int, weigh: Scorer) -> dict[str, Any]:
    """A vote over k samples, each with its weight; the first sample with the winning answer stands for it."""
    sampled = [rows for rows in graded.values() if len(rows) >= k]

    def of_problem(rows: list[Row]) -> float:
        def of_subset(indices: Sequence[int]) -> float:
            chosen = [rows[index] for index in indices]
            return chosen[estimate.vote([(row["answer"], weigh(row)) for row in chosen])]["reward"]

        return estimate.over_subsets(len(rows), k, of_subset)

    cost = statistics.fmean(statistics.fmean(row["tokens"] for row in rows) for rows in sampled) * k
    return _proportion(map(of_problem, sampled)) | {"tokens_per_problem": cost}


def best(graded: Graded, k: int, scorer: Scorer) -> dict[str, Any]:
    """The best-scored of k samples; one whose shown tests fail comes after all others."""
    sampled = [rows for rows in graded.values() if len(rows) >= k]
    values = []
    for rows in sampled:
        last = min(scorer(row) for row in rows) - 1
        values.append(
            estimate.best_of_k([(last if row["shown"] is False else scorer(row), row["reward"]) for row in rows], k)
        )
    cost = statistics.fmean(statistics.fmean(row["tokens"] for row in rows) for rows in sampled) * k
    return _proportion(values) | {"tokens_per_problem": cost}


def confidence(row: Row) -> float:
    """Geometric mean of the sampled tokens' probabilities; of a sample without log-probs, 1."""
    return math.exp(row["mean_logprob"]) if row["mean_logprob"] is not None else 1.0


def scorer_of(name: str) -> Scorer:
    """A scorer by name, or a function of a sample's row by its path.

    Raises:
        BadSetting: there is none.
    """
    if name == "mean_logprob":
        return lambda row: row["mean_logprob"] if row["mean_logprob"] is not None else -math.inf
    if name == "shortest":
        return lambda row: -row["tokens"]
    module, _dot, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadSetting(
            f"scorer={name!r}: mean_logprob, shortest, or a function's path is needed ({error})"
        ) from error


def counts(items: Sequence[Item], n: int, samples: Sequence[Row], graded: Graded) -> dict[str, int]:
    """How many of what; ``failed``: not answered; ``infrastructure``: answered, but not graded."""
    return {
        "problems": len(items),
        "expected": len(items) * n,
        "samples": len(samples),
        "failed": len(items) * n - len(samples),
        "infrastructure": len(samples) - sum(map(len, graded.values())),
        "truncated": sum(row["finish"] == "length" for row in samples),
    }


def verdict_counts(graded: Graded) -> dict[str, int]:
    """Samples by verdict, the most frequent first."""
    return dict(Counter(row["verdict"] for rows in graded.values() for row in rows).most_common())


def _one_each(_row: Row) -> float:
    return 1.0


def _proportion(values: Iterable[float]) -> dict[str, Any]:
    return estimate.proportion_interval(list(values)).as_dict()


def _tokens(graded: Graded) -> float:
    """Tokens a problem, all samples together."""
    return statistics.fmean(sum(row["tokens"] for row in rows) for rows in graded.values())


def _have_logprobs(graded: Graded) -> bool:
    return all(row["mean_logprob"] is not None for rows in graded.values() for row in rows)


def _budgets(graded: Graded) -> list[dict[str, Any]]:
    """pass@1 if a response were cut off at so many tokens: what is longer than that has no answer yet.

    Exact where the limit does not enter sampling, as in vLLM: a shorter run's response is the beginning of ours.
    """
    longest = max(row["tokens"] for rows in graded.values() for row in rows)
    found = []
    budget = LEAST_BUDGET
    while longest > 0:
        within = ([row["reward"] * (row["tokens"] <= budget) for row in rows] for rows in graded.values())
        found.append({"tokens": budget} | _proportion(statistics.fmean(values) for values in within))
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
    bins = [{"low": low, "high": low + width, "count": 0, "accepted": 0} for low in range(0, longest + 1, width)]
    for row in rows:
        found = bins[row["tokens"] // width]
        found["count"] += 1
        found["accepted"] += row["reward"] == 1.0
    return {
        "mean": statistics.fmean(tokens),
        "median": statistics.median(tokens),
        "p95": estimate.quantile(tokens, 0.95),
        "max": longest,
        "histogram": bins,
    }


def _breakdown(means: dict[str, float], items: Sequence[Item]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        for tag, value in item.tags.items():
            if item.id in means:
                groups[tag][value].append(means[item.id])
    return {
        tag: [{"name": value, "problems": len(of), **_proportion(of)} for value, of in sorted(values.items())]
        for tag, values in groups.items()
        if len(values) > 1
    }
