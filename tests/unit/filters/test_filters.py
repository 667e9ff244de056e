"""Filters: protocol, registry, the infrastructure filter, lone survivors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.filters import BatchView, Decision, load_filters
from verl_pipeline.filters.apply import apply_filters, lone_survivors


def view(verdicts, rewards=None, lengths=None):
    n = len(verdicts)
    return BatchView(
        [f"p{row // 2}" for row in range(n)],
        np.array(rewards if rewards is not None else [1.0] * n),
        list(verdicts),
        np.array(lengths if lengths is not None else [10] * n),
    )


class ZeroRewardless:
    """A third party's filter."""

    name = "zero_rewardless"

    def decide(self, batch):
        return [Decision.ZERO_ADVANTAGE if reward == 0 else Decision.KEEP for reward in batch.rewards]


class TooFew:
    name = "too_few"

    def decide(self, batch):
        return []


@given(st.lists(st.sampled_from(["accepted", "wrong_answer", "infrastructure", None]), max_size=40))
def test_infrastructure_verdicts_leave_and_nothing_else_does(verdicts):
    filtered = apply_filters(load_filters(["infrastructure"]), view(verdicts))
    assert filtered.kept.tolist() == [row for row, verdict in enumerate(verdicts) if verdict != "infrastructure"]
    assert not filtered.zeroed.any()
    assert filtered.metrics["filters/infrastructure/dropped"] == verdicts.count("infrastructure")


def test_metrics_show_the_length_bias():
    filtered = apply_filters(
        load_filters(["infrastructure"]),
        view(["accepted", "infrastructure"], rewards=[1.0, 0.0], lengths=[10, 30]),
    )
    assert filtered.metrics["filters/infrastructure/share_of_tokens"] == 0.75
    assert filtered.metrics["filters/infrastructure/response_length_mean_before"] == 20
    assert filtered.metrics["filters/infrastructure/response_length_mean_after"] == 10
    assert filtered.metrics["filters/infrastructure/reward_mean_before"] == 0.5
    assert filtered.metrics["filters/infrastructure/reward_mean_after"] == 1.0


def test_filters_run_in_order_and_see_what_is_left():
    filters = [*load_filters(["infrastructure"]), ZeroRewardless()]
    filtered = apply_filters(filters, view(["infrastructure", "accepted", "wrong_answer"], rewards=[0.0, 1.0, 0.0]))
    assert filtered.kept.tolist() == [1, 2]
    assert filtered.zeroed.tolist() == [False, False, True]
    assert filtered.metrics["filters/zero_rewardless/zero_advantage"] == 1


def test_a_filter_by_class_path():
    (loaded,) = load_filters(["verl_pipeline.filters.infrastructure.InfrastructureFilter"])
    assert loaded.name == "infrastructure"


@pytest.mark.parametrize("name", ["infrastrukture", "no.such.module.Filter", "verl_pipeline.filters.Nothing"])
def test_an_unknown_filter_is_named(name):
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_filters([name])


def test_a_filter_that_returns_too_few_decisions_is_named():
    with pytest.raises(ValueError, match="too_few: 0 decisions for 1"):
        apply_filters([TooFew()], view(["accepted"]))


def test_lone_survivors_are_sessions_not_rows():
    sessions = [("a", 0), ("b", 0), ("b", 1), ("c", 2), ("c", 2), ("d", 0)]
    alone = lone_survivors(sessions, {"a": 4, "b": 4, "c": 4, "d": 1})
    assert alone.tolist() == [True, False, False, True, True, False]
