"""When differing log-probs stop a run, and log-probs at other temperatures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.weight_sync.comparison import WeightsDiffer
from verl_pipeline.weight_sync.log_prob_drift import (
    FACTOR,
    FIRST,
    LogProbDrift,
    choose_limits,
    scale_log_prob,
)

HALF = choose_limits("bfloat16", False, None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.005, 0.02), min_size=1, max_size=30))
def test_noise_within_the_factor_never_stops_a_run(gaps):
    drift = LogProbDrift(*HALF)
    for version, gap in enumerate(gaps):
        assert drift.check_gaps({"replica 0": gap / 2, "replica 1": gap}, version) == gap


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-8, 0.02), min_size=1, max_size=10), st.floats(1.01, 100))
def test_a_jump_stops_it_and_names_replica_version_and_figures(gaps, factor):
    drift = LogProbDrift(*HALF)
    for version, gap in enumerate(gaps):
        try:
            drift.check_gaps({"replica 0": gap}, version)
        except WeightsDiffer:
            return  # the list itself has a jump
    jump = max(FACTOR * min(gaps[:FIRST]), drift.floor) * factor
    with pytest.raises(WeightsDiffer, match=r"^replica 1, said to hold v_77, .* by ") as caught:
        drift.check_gaps({"replica 0": gaps[-1], "replica 1": jump}, 77)
    assert f"{jump:.3g} on average" in str(caught.value)
    assert "the others: replica 0 " in str(caught.value)


def test_the_first_gap_has_the_absolute_limit_and_later_ones_too():
    with pytest.raises(WeightsDiffer, match=r"by 0\.21 on average, above 0\.2, the absolute limit"):
        LogProbDrift(*HALF).check_gaps({"r": 0.21}, 0)
    drift = LogProbDrift(*HALF)
    drift.check_gaps({"r": 0.19}, 0)
    with pytest.raises(WeightsDiffer, match=r"above 0\.2, the absolute limit"):
        drift.check_gaps({"r": 0.21}, 1)


def test_no_number_stops_it():
    with pytest.raises(WeightsDiffer, match=r"^b, .* by nan on average"):
        LogProbDrift(*HALF).check_gaps({"a": 0.001, "b": math.nan}, 0)


def test_limits_by_dtype():
    assert choose_limits("float32", False, None) < choose_limits("bfloat16", False, None)
    assert choose_limits("bfloat16", False, None) < choose_limits("bfloat16", True, None)
    # The user's limit stands for the drift's, too: otherwise raising it would change nothing.
    assert choose_limits("bfloat16", False, 0.3) == (0.3, 0.3)
    drift = LogProbDrift(*choose_limits("float32", False, 0.3))
    assert [drift.check_gaps({"replica 0": gap}, 1) for gap in (1e-7, 0.29)] == [1e-7, 0.29]
    assert choose_limits("auto", False, None) == HALF


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=60),
    st.floats(0.2, 1.0),
    st.integers(1, 20),
    st.data(),
)
def test_a_log_prob_at_a_lower_temperature_lies_within_its_bound(logits, temperature, k, data):
    raw = np.array(logits) - np.logaddexp.reduce(logits)
    scaled = np.array(logits) / temperature
    exact = scaled - np.logaddexp.reduce(scaled)
    order = np.argsort(-raw, kind="stable")[:k]
    token = int(data.draw(st.sampled_from(sorted(range(len(logits))))))
    found = scale_log_prob([(int(i), float(raw[i])) for i in order], token, temperature)
    if token not in order:
        assert found is None
        return
    value, bound = found
    assert exact[token] - 1e-9 <= value <= exact[token] + bound + 1e-9
