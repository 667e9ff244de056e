"""Methods that use the confidence of windows: weighted and filtered votes, and early stop.

Early stop is a replay: samples were generated to their end, and their recorded confidences say
where a run with the threshold would have stopped them. Since each sample has its own seed, such a
run draws the same tokens up to there.

Invariants:
* A method sees answers and confidences, never rewards.
* A sample without tokens has no confidence and no vote.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.eval_settings import ConfidenceConfig
from verl_pipeline.evaluation.graded_samples import GradedSamples
from verl_pipeline.evaluation.method_values import MethodValues, count_tokens
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.token_confidence import (
    MEASURES,
    Measure,
    find_stop,
    measure_lowest,
    to_weight,
)


@dataclass(frozen=True)
class ConfidenceWindows:
    """How windows of confidence are measured and used.

    Attributes:
        config: settings.
        top_logprobs: as ``engine.top_logprobs``.
    """

    config: ConfidenceConfig
    top_logprobs: int


def has_token_confidences(graded: GradedSamples) -> bool:
    """Whether the confidences of every sample's tokens are recorded."""
    return all(row.get("token_confidences") is not None for rows in graded.values() for row in rows)


def list_confidence_methods(
    graded: GradedSamples, k: int, windows: ConfidenceWindows
) -> list[MethodValues]:
    """Return what each method that uses windows achieves with k samples of each problem."""
    config, top_logprobs = windows.config, windows.top_logprobs
    methods = []
    for name, measure in MEASURES.items():
        weigh = _Weigher(measure, config.window, top_logprobs)
        methods.append(_vote(graded, k, f"weighted by {name} confidence", weigh))
    lowest = _Weigher(measure_lowest, config.window, top_logprobs)
    count = max(1, math.ceil(config.keep * k))
    if count < k:
        name = f"of its {count} most confident, by lowest group"
        methods.append(_vote(graded, k, name, lowest, count))
    if config.warmup < k:
        methods.append(_replay_early_stop(graded, k, config, lowest))
    return methods


@dataclass(frozen=True)
class _Weigher:
    measure: Measure
    window: int
    top_logprobs: int

    def measure_row(self, row: Row) -> float:
        tokens = row["token_confidences"]
        return self.measure(tokens, self.window) if tokens else -math.inf

    def make_vote(self, row: Row) -> tuple[str | None, float]:
        confidence = self.measure_row(row)
        answer = row["answer"] if confidence > -math.inf else None
        return answer, to_weight(confidence, self.top_logprobs) if answer is not None else 0.0


def _vote(
    graded: GradedSamples, k: int, name: str, weigh: _Weigher, count: int | None = None
) -> MethodValues:
    """Return a weighted vote of k samples, or of the ``count`` most confident of them."""
    rewards = {}
    for problem, rows in graded.items():
        votes = [weigh.make_vote(row) for row in rows]
        confidences = [weigh.measure_row(row) for row in rows]

        def score_subset(
            chosen: Sequence[int],
            rows: list[Row] = rows,
            votes: list[tuple[str | None, float]] = votes,
            confidences: list[float] = confidences,
        ) -> float:
            ranked = sorted(chosen, key=lambda index: -confidences[index])
            kept = sorted(ranked[:count])
            winner = estimators.find_vote_winner([votes[index] for index in kept])
            return rows[kept[winner]]["reward"]

        rewards[problem] = estimators.average_over_subsets(len(rows), k, score_subset)
    return MethodValues(f"vote of {k} {name}", rewards, count_tokens(graded, k), k)


def _replay_early_stop(
    graded: GradedSamples, k: int, config: ConfidenceConfig, weigh: _Weigher
) -> MethodValues:
    """Replay DeepConf's online mode: a threshold from the warm-up, then samples one by one.

    The threshold is the lowest confidence among the share ``keep`` of the warm-up that is most
    confident. A sample that falls below it stops there and has no vote. No further sample begins
    once the leading answer has the share ``consensus`` of the weight.
    """
    rewards, tokens = {}, {}
    for problem, rows in graded.items():
        ends = [
            _replay_problem([rows[index] for index in order], config, weigh)
            for order in _rotate(len(rows), k)
        ]
        rewards[problem] = statistics.fmean(reward for reward, _spent in ends)
        tokens[problem] = statistics.fmean(spent for _reward, spent in ends)
    name = f"vote of up to {k}, stopped early by lowest group confidence"
    return MethodValues(name, rewards, tokens, k)


def _rotate(n: int, k: int) -> list[list[int]]:
    """Return n orders of k of n samples, in which each sample has each place once."""
    return [[(start + place) % n for place in range(k)] for start in range(n)]


def _replay_problem(
    rows: Sequence[Row], config: ConfidenceConfig, weigh: _Weigher
) -> tuple[float, float]:
    """Return the reward of the answer and the tokens spent on it."""
    warmup = rows[: config.warmup]
    spent = sum(row["tokens"] for row in warmup)
    ranked = sorted((weigh.measure_row(row) for row in warmup), reverse=True)
    threshold = ranked[max(1, math.ceil(config.keep * len(ranked))) - 1]
    kept = [row for row in warmup if weigh.measure_row(row) >= threshold]
    for row in rows[config.warmup :]:
        if _has_consensus([weigh.make_vote(one) for one in kept], config.consensus):
            break
        stop = find_stop(row["token_confidences"], config.window, threshold)
        spent += row["tokens"] if stop is None else stop
        if stop is None:
            kept.append(row)
    winner = estimators.find_vote_winner([weigh.make_vote(row) for row in kept])
    return kept[winner]["reward"], spent


def _has_consensus(votes: Sequence[tuple[str | None, float]], share: float) -> bool:
    winner = votes[estimators.find_vote_winner(votes)][0]
    total = sum(weight for _answer, weight in votes)
    if winner is None or not total:
        return False
    return sum(weight for answer, weight in votes if answer == winner) >= share * total
