"""Estimators and their intervals: pure functions of the samples' scores.

Invariants:
* A problem is the unit: its samples depend on each other, so every interval is over problems.
* An interval of a proportion stays within [0, 1], and is never of width 0 because nothing, or
  everything, was right.
* pass@k and best@k are unbiased for k samples; no estimate uses more samples than it says.
"""

import functools
import itertools
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

CONFIDENCE = 0.95
# Subsets of k samples that a majority vote is averaged over, where there are more than that.
VOTES = 200


@dataclass(frozen=True)
class Interval:
    """An estimate and its two-sided 95 % interval; without a second problem there is none (None)."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """As it is written to ``results.json``."""
        return asdict(self)


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of independent ``values`` and Student's interval, for quantities without bounds (gains,
    lengths).
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean)
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def proportion_interval(means: Sequence[float], each: float = 1.0) -> Interval:
    """Mean of the problems' own means, each in [0, 1], clustered by problem.

    Args:
        means: of the problems.
        each: independent observations that a problem's mean rests on: samples / k.

    Wilson's interval with the effective sample size p (1 - p) / se² in the place of the count, se
    the standard error over problems, and Student's quantile: Korn and Graubard's idea (Survey
    Methodology 24, 1998), as Franco, Little, Louis and Slud compare it (Journal of Survey
    Statistics and Methodology 7, 2019). Where nothing or everything is right, se is 0 and says
    nothing: the effective size is the number of problems. It never exceeds that of independent
    observations. Where a few problems differ much from all others and none of them is in the
    sample, no interval can know it.
    """
    p, n = statistics.fmean(means), len(means)
    if n < 2:
        return Interval(p)
    squared_error = statistics.variance(means) / n
    size = (
        min(n * each, max(float(n), p * (1 - p) / squared_error)) if squared_error > 0 else float(n)
    )
    t = student_t(n - 1)
    middle = (p + t * t / (2 * size)) / (1 + t * t / size)
    half = t / (1 + t * t / size) * math.sqrt(p * (1 - p) / size + t * t / (4 * size * size))
    return Interval(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def difference_interval(
    before: Mapping[str, float], after: Mapping[str, float], each: float = 1.0
) -> Interval:
    """Mean gain of ``after`` over ``before``, problem by problem, on the problems that both have.

    Two problems are added with squared gains of together ``1 / each``: where hardly a problem
    changed, the plain variance knows too little (Agresti and Min, Statistics in Medicine 24, 2005,
    for one sample a problem).

    Args:
        each: samples a problem.

    Raises:
        ValueError: they have none in common.
    """
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise ValueError("no problem in common")
    gains = [after[name] - before[name] for name in shared]
    gain, n = statistics.fmean(gains), len(gains) + 2
    middle = sum(gains) / n
    variance = (sum(value * value for value in gains) + 1 / each) / n - middle * middle
    half = student_t(n - 1) * math.sqrt(variance / n)
    return Interval(gain, max(-1.0, min(gain, middle - half)), min(1.0, max(gain, middle + half)))


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of n samples, c of them right, hold a right one.

    Chen et al., "Evaluating Large Language Models Trained on Code" (2021), equation 1: unbiased.

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {n} samples, {c} of them right")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def best_of_k(scored: Sequence[tuple[float, float]], k: int) -> float:
    """Expected reward of the best-scored of k samples, over all subsets of k; ties count in the
    order given.

    Args:
        scored: (score, reward) of each sample.
        k: at most as many as there are.
    """
    ordered = sorted(scored, key=lambda pair: -pair[0])
    n = len(ordered)
    # The sample of rank r is the best of a subset if the others are taken from the n - 1 - r behind
    # it.
    weights = (math.comb(n - 1 - rank, k - 1) for rank in range(n))
    return sum(
        w * reward for w, (_score, reward) in zip(weights, ordered, strict=True)
    ) / math.comb(n, k)


def vote(answers: Sequence[tuple[str | None, float]]) -> int:
    """Index of the sample that stands for the heaviest answer; a tie goes to the answer that came
    first.

    Args:
        answers: (answer, weight) of each sample, at least one; a missing answer (None) never wins
            over another.
    """
    totals: dict[str, float] = {}
    for answer, weight in answers:
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    if not totals:
        return 0
    winner = max(totals, key=lambda answer: totals[answer])  # of equals the first
    return next(index for index, (answer, _weight) in enumerate(answers) if answer == winner)


def over_subsets(n: int, k: int, measure: Callable[[Sequence[int]], float]) -> float:
    """Mean of ``measure`` over the subsets of k of n indices (in order), or over :data:`VOTES` of
    them, by a seed.
    """
    if math.comb(n, k) <= VOTES:
        return statistics.fmean(map(measure, itertools.combinations(range(n), k)))
    generator = random.Random(f"{n} {k}")
    return statistics.fmean(measure(sorted(generator.sample(range(n), k))) for _ in range(VOTES))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def powers_up_to(n: int) -> list[int]:
    """1, 2, 4, ... and n itself."""
    return sorted({*(1 << bit for bit in range(n.bit_length())), n}) if n else []


@functools.cache
def student_t(freedom: float) -> float:
    """The two-sided 95 % quantile of Student's distribution (scipy is not among the locked
    packages).

    With t = sqrt(freedom) tan(angle), P(0 < T < t) is an integral of cos(angle)^(freedom - 1):
    Simpson and bisection.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        step = angle / 400
        weights = [1.0, *([4.0, 2.0] * 199), 4.0, 1.0]
        area = (
            sum(w * math.cos(i * step) ** (freedom - 1) for i, w in enumerate(weights)) * step / 3
        )
        low, high = (angle, high) if scale * area < CONFIDENCE / 2 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)
