"""Estimators of scores and their intervals; pure functions.

Invariants:
* The problem is the unit of every interval, since the samples of one problem are not independent.
* The interval of a proportion stays within [0, 1], and has a positive width even if all samples are
  wrong, or all correct.
* pass@k and best of k are unbiased for k samples.
"""

import functools
import itertools
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

CONFIDENCE = 0.95
# Largest number of subsets that a vote of k samples is averaged over.
MAX_VOTE_SUBSETS = 200


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided 95 % interval; the bounds are None for a single problem."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """Return the form that ``results.json`` has."""
        return asdict(self)


def estimate_mean(values: Sequence[float]) -> Interval:
    """Mean of independent values with Student's interval, for unbounded quantities."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean)
    half = compute_student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def estimate_proportion(means: Sequence[float], observations_per_problem: float = 1.0) -> Interval:
    """Mean of the problems' means, each in [0, 1], with an interval clustered by problem.

    Args:
        means: one mean per problem.
        observations_per_problem: independent observations behind each mean: samples / k.

    The interval is Wilson's, with Student's quantile and the effective sample size p (1 - p) / se²
    in place of the count; se is the standard error over problems. The idea is Korn and Graubard's
    (Survey Methodology 24, 1998), as compared by Franco, Little, Louis and Slud (Journal of Survey
    Statistics and Methodology 7, 2019). If all samples are wrong, or all correct, se is 0 and
    carries no information: the effective size is then the number of problems. The effective size
    never exceeds the number of independent observations. If a few problems differ much from all
    others and none of them is in the sample, no interval can cover them.
    """
    p, n = statistics.fmean(means), len(means)
    if n < 2:
        return Interval(p)
    squared_error = statistics.variance(means) / n
    size = (
        min(n * observations_per_problem, max(float(n), p * (1 - p) / squared_error))
        if squared_error > 0
        else float(n)
    )
    t = compute_student_t(n - 1)
    middle = (p + t * t / (2 * size)) / (1 + t * t / size)
    half = t / (1 + t * t / size) * math.sqrt(p * (1 - p) / size + t * t / (4 * size * size))
    return Interval(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def estimate_difference(
    before: Mapping[str, float], after: Mapping[str, float], samples_per_problem: float = 1.0
) -> Interval:
    """Mean paired gain of ``after`` over ``before`` on their common problems.

    Two pseudo-problems are added whose squared gains sum to ``1 / samples_per_problem``: if hardly
    any problem changed, the plain variance is too small (Agresti and Min, Statistics in Medicine
    24, 2005, for one sample per problem).

    Args:
        before, after: mean rewards by problem.

    Raises:
        ValueError: no common problem.
    """
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise ValueError("no problem in common")
    gains = [after[name] - before[name] for name in shared]
    gain, n = statistics.fmean(gains), len(gains) + 2
    middle = sum(gains) / n
    squares = sum(value * value for value in gains) + 1 / samples_per_problem
    variance = squares / n - middle * middle
    half = compute_student_t(n - 1) * math.sqrt(variance / n)
    return Interval(gain, max(-1.0, min(gain, middle - half)), min(1.0, max(gain, middle + half)))


def estimate_pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples, c of which are correct, include a correct one.

    1 - C(n-c, k) / C(n, k), which is unbiased (Chen et al., "Evaluating Large Language Models
    Trained on Code", 2021, equation 1).

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} is undefined for {n} samples with {c} correct")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def estimate_best_of_k(scored: Sequence[tuple[float, float]], k: int) -> float:
    """Expected reward of the best-scored of k samples, over all subsets of k samples.

    Of equal scores the first counts as the best.

    Args:
        scored: (score, reward) of each sample.
        k: at most the number of samples.
    """
    ordered = sorted(scored, key=lambda pair: -pair[0])
    n = len(ordered)
    # The sample of rank r is the best of a subset if the other k - 1 are among the n - 1 - r
    # samples behind it.
    weights = (math.comb(n - 1 - rank, k - 1) for rank in range(n))
    return sum(
        w * reward for w, (_score, reward) in zip(weights, ordered, strict=True)
    ) / math.comb(n, k)


def find_vote_winner(answers: Sequence[tuple[str | None, float]]) -> int:
    """Return the index of the first sample with the winning answer, by total weight.

    A tie goes to the answer that comes first.

    Args:
        answers: (answer, weight) of each sample, at least one; a missing answer (None) loses
            against any other.
    """
    totals: dict[str, float] = {}
    for answer, weight in answers:
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    if not totals:
        return 0
    winner = max(totals, key=lambda answer: totals[answer])  # the first, if equal
    return next(index for index, (answer, _weight) in enumerate(answers) if answer == winner)


def average_over_subsets(n: int, k: int, measure: Callable[[Sequence[int]], float]) -> float:
    """Mean of ``measure`` over all subsets of k of n indices, each in ascending order.

    If there are more than :data:`MAX_VOTE_SUBSETS` subsets, so many are drawn with a fixed seed.
    """
    if math.comb(n, k) <= MAX_VOTE_SUBSETS:
        return statistics.fmean(map(measure, itertools.combinations(range(n), k)))
    generator = random.Random(f"{n} {k}")
    return statistics.fmean(
        measure(sorted(generator.sample(range(n), k))) for _ in range(MAX_VOTE_SUBSETS)
    )


def compute_quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def list_powers_up_to(n: int) -> list[int]:
    """Return 1, 2, 4, ... up to n, and n itself."""
    return sorted({*(1 << bit for bit in range(n.bit_length())), n}) if n else []


@functools.cache
def compute_student_t(freedom: float) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution.

    scipy is not among the locked packages. With t = sqrt(freedom) tan(angle), P(0 < T < t) is an
    integral of cos(angle)^(freedom - 1), which Simpson's rule evaluates and bisection inverts.

    Args:
        freedom: degrees of freedom, which need not be an integer.
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
