"""Filters: protocol, registry, the infrastructure filter, lone survivors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.filters import BatchView, Decision, load_filters
from verl_pipeline.filters.filter_chain import apply_filters, find_lone_survivors
from verl_pipeline.named_classes import NamedClasses


def view(verdicts, rewards=None, lengths=None):
    n = len(verdicts)
    return BatchView(
        uids=[f"p{row // 2}" for row in range(n)],
        sessions=np.arange(n) % 2,
        rewards=np.array(rewards if rewards is not None else [1.0] * n),
        verdicts=list(verdicts),
        response_lengths=np.array(lengths if lengths is not None else [10] * n),
        limits=np.full(n, 30),
        truncated=np.zeros(n, dtype=bool),
    )


class ZeroRewardless:
    """A third party's filter."""

    name = "zero_rewardless"

    def decide(self, batch):
        return [
            Decision.ZERO_ADVANTAGE if reward == 0 else Decision.KEEP for reward in batch.rewards
        ]


class Nameless:
    only_drops = True

    def decide(self, batch):
        return [Decision.KEEP] * len(batch)


class TooFew:
    name = "too_few"

    def decide(self, batch):
        return []


@given(st.lists(st.sampled_from(["accepted", "wrong_answer", "infrastructure", None]), max_size=40))
def test_infrastructure_verdicts_leave_and_nothing_else_does(verdicts):
    filtered = apply_filters(load_filters(["infrastructure"]), view(verdicts))
    assert filtered.kept.tolist() == [
        row for row, verdict in enumerate(verdicts) if verdict != "infrastructure"
    ]
    assert not filtered.zeroed.any()
    assert filtered.metrics["filters/infrastructure/dropped"] == verdicts.count("infrastructure")


def test_metrics_show_the_length_bias():
    batch = view(["accepted", "infrastructure"], rewards=[1.0, 0.0], lengths=[10, 30])
    found = apply_filters(load_filters(["infrastructure"]), batch).metrics
    assert found["filters/infrastructure/share_of_tokens"] == 0.75
    assert found["filters/infrastructure/response_length_mean"] == 30
    assert found["filters/infrastructure/reward_mean"] == 0.0
    assert (
        found["filters/before/response_length_mean"] == 20
        and found["filters/after/response_length_mean"] == 10
    )
    assert found["filters/before/reward_mean"] == 0.5 and found["filters/after/reward_mean"] == 1.0
    assert found["filters/before/trajectories"] == 2 and found["filters/after/trajectories"] == 1


def test_what_nothing_is_left_of_has_no_mean():
    found = apply_filters(load_filters(["infrastructure"]), view(["infrastructure"])).metrics
    assert found["filters/after/trajectories"] == 0
    assert "filters/after/reward_mean" not in found and not any(
        np.isnan(value) for value in found.values()
    )


def test_filters_run_in_order_and_see_what_is_left():
    filters = [*load_filters(["infrastructure"]), ZeroRewardless()]
    filtered = apply_filters(
        filters, view(["infrastructure", "accepted", "wrong_answer"], rewards=[0.0, 1.0, 0.0])
    )
    assert filtered.kept.tolist() == [1, 2]
    assert filtered.zeroed.tolist() == [False, False, True]
    assert filtered.metrics["filters/zero_rewardless/zero_advantage"] == 1


def test_a_filter_by_class_path():
    (loaded,) = load_filters(["verl_pipeline.filters.infrastructure.InfrastructureFilter"])
    assert loaded.name == "infrastructure"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("overlongg", "unknown filter 'overlongg'; did you mean overlong?"),
        (
            "xyz",
            (
                "unknown filter 'xyz'; registered: infrastructure, overlong, zero_variance, or give"
                " a class path"
            ),
        ),
        ("no.such.module.Filter", "'no.such.module.Filter' cannot be imported"),
        ("verl_pipeline.filters.Nothing", "'verl_pipeline.filters.Nothing' cannot be imported"),
        ({"mode": "drop"}, "a name is needed"),
        ({"name": "overlong", "mood": "drop"}, "filter overlong: .*'mood'; it takes mode"),
        (
            {"name": "overlong", "mode": "mask"},
            "mode='mask' must be one of drop, deepcoder, wrong_only",
        ),
        (
            {"name": "zero_variance", "mode": "drop"},
            "filter zero_variance: .*; it takes no settings",
        ),
        (None, "filter None: a name is needed"),
        (3, "filter 3: a name is needed"),
        (
            "verl_pipeline.filters.zero_variance",
            "is no filter: a class with a method decide is needed",
        ),
        ("collections.OrderedDict", "is no filter: a class with a method decide is needed"),
        (f"{__name__}.Nameless", "Nameless needs an attribute `name`"),
    ],
)
def test_a_filter_that_cannot_be_made_is_named(entry, message):
    with pytest.raises(ValueError, match=message):
        load_filters([entry])


def test_two_filters_of_one_name_are_refused():
    with pytest.raises(ValueError, match="2 filters are named overlong: list it once"):
        load_filters(["overlong", "zero_variance", {"name": "overlong", "mode": "deepcoder"}])


def test_a_class_is_registered_under_its_own_name():
    filters = NamedClasses("filter", "decide", "{name: few}", "its metrics go under it")
    filters.register("few")(TooFew)
    with pytest.raises(ValueError, match="filter few: its attribute `name` is 'too_few'"):
        filters.make("few")
    with pytest.raises(ValueError, match="filter name 'few' belongs to TooFew"):
        filters.register("few")(dict)


def test_a_filter_that_returns_too_few_decisions_is_named():
    with pytest.raises(ValueError, match="too_few: 0 decisions for 1"):
        apply_filters([TooFew()], view(["accepted"]))


def test_what_has_no_baseline_left_is_not_trained_on():
    filters = load_filters(["infrastructure"])
    rows = view(["infrastructure", "accepted", "accepted", "accepted"], lengths=[10, 20, 30, 40])

    filtered = apply_filters(filters, rows, {"p0": 2, "p1": 2})
    assert filtered.kept.tolist() == [1, 2, 3] and filtered.zeroed.tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert filtered.trained_rows.tolist() == [2, 3]
    assert filtered.metrics["filters/lone_survivors"] == 1
    assert filtered.metrics["filters/after/trajectories"] == 2
    assert filtered.metrics["filters/after/response_length_mean"] == 35


def test_lone_survivors_are_sessions_not_rows():
    left = replace(
        view([None] * 6), uids=list("abbccd"), sessions=np.array([0, 0, 1, 2, 2, 0], dtype=np.int64)
    )
    alone = find_lone_survivors(left, {"a": 4, "b": 4, "c": 4, "d": 1})
    assert alone.tolist() == [True, False, False, True, True, False]


class Remembers:
    """Asserts nothing itself; keeps what it was shown."""

    name = "remembers"
    only_drops = True

    def decide(self, batch):
        self.seen = batch.rewards.tolist()
        return [Decision.KEEP] * len(batch)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, float("nan")]), max_size=20))
def test_a_row_without_a_reward_leaves_before_any_filter_sees_it(rewards):
    shown = Remembers()
    filtered = apply_filters([shown], view([None] * len(rewards), rewards))
    with_reward = [reward for reward in rewards if reward == reward]
    assert shown.seen == with_reward
    assert filtered.kept.tolist() == [row for row, reward in enumerate(rewards) if reward == reward]
    assert filtered.metrics["filters/no_reward/dropped"] == len(rewards) - len(with_reward)
    assert all(np.isfinite(value) for value in filtered.metrics.values())
    if with_reward:
        assert filtered.metrics["filters/before/reward_mean"] == np.mean(with_reward)


def test_a_member_whose_siblings_have_no_reward_gets_no_raw_reward_as_advantage():
    filtered = apply_filters([], view([None] * 2, [1.0, float("nan")]), {"p0": 2})
    assert filtered.kept.tolist() == [0] and filtered.zeroed.tolist() == [True, False]


@st.composite
def draw_split_batch(draw):
    """A batch, and the same with each trajectory split into 1 to 3 rows, as verl does it: all rows
    of a session have its reward and verdict.
    """
    members = draw(
        st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.sampled_from([0.0, 1.0, np.nan]),
                st.sampled_from(["accepted", "infrastructure", None]),
                st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=3),
            ),
            min_size=1,
            max_size=8,
        )
    )
    members.sort(key=lambda member: member[0])
    rows = [
        (uid, number, reward, verdict, length, truncated)
        for number, (uid, reward, verdict, parts) in enumerate(members)
        for length, truncated in parts
    ]
    uids, sessions, rewards, verdicts, lengths, truncated = zip(*rows, strict=True)
    split = BatchView(
        list(uids),
        np.array(sessions),
        np.array(rewards),
        list(verdicts),
        np.array(lengths),
        np.full(len(rows), 30),
        np.array(truncated),
    )
    whole = BatchView(
        [uid for uid, *_ in members],
        np.arange(len(members)),
        np.array([reward for _, reward, *_ in members]),
        [verdict for _, _, verdict, _ in members],
        np.array([sum(length for length, _ in parts) for *_, parts in members]),
        np.array([30 * len(parts) for *_, parts in members]),
        np.array([any(cut for _, cut in parts) for *_, parts in members]),
    )
    return split, whole


@settings(deadline=None)
@given(draw_split_batch())
def test_a_trajectory_in_several_rows_counts_once(batches):
    """Filters that look at rewards and verdicts do the same, and count the same, however an agent
    loop splits its trajectories.
    """
    split, whole = batches
    sizes = {uid: max(whole.uids.count(uid), 2) for uid in whole.uids}
    filters = [*load_filters(["infrastructure", "zero_variance"]), ZeroRewardless()]
    found = apply_filters(filters, split, sizes)
    expected = apply_filters(filters, whole, sizes)
    assert found.metrics == expected.metrics
    assert sorted(set(split.sessions[found.kept])) == expected.kept.tolist()
    assert sorted(set(split.sessions[found.zeroed])) == np.flatnonzero(expected.zeroed).tolist()


def test_a_member_that_was_split_is_no_group():
    """PPO with one sample a prompt: equal rewards of its rows say nothing about a group."""
    lone = BatchView(
        ["a", "a"],
        np.array([0, 0]),
        np.array([1.0, 1.0]),
        [None, None],
        np.array([3, 4]),
        np.array([9, 9]),
        np.array([False, True]),
    )
    assert apply_filters(load_filters(["zero_variance"]), lone).kept.tolist() == [0, 1]
    merged = lone.merge_sessions()
    assert (len(merged), merged.response_lengths.tolist(), merged.truncated.tolist()) == (
        1,
        [7],
        [True],
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accepted", "infrastructure"]), st.sampled_from([0.0, 1.0, np.nan])
        ),
        min_size=1,
        max_size=20,
    )
)
def test_whoever_leaves_or_counts_nothing_has_a_reason_and_nobody_else(rows):
    verdicts, rewards = zip(*rows, strict=True)
    batch = view(verdicts, list(rewards))
    filters = [*load_filters(["infrastructure"]), ZeroRewardless()]
    filtered = apply_filters(filters, batch, dict.fromkeys(batch.uids, 2))
    affected = set(range(len(batch))) - set(filtered.trained_rows.tolist())
    assert set(filtered.reasons) == affected
    for row, reason in filtered.reasons.items():
        if np.isnan(rewards[row]):
            assert reason == "no_reward"
        elif verdicts[row] == "infrastructure":
            assert reason == "infrastructure"
        else:
            assert reason in ("zero_rewardless", "lone_survivor")
    sessions = filtered.name_sessions(batch)
    assert sessions == {
        (f"p{row // 2}", row % 2): reason for row, reason in filtered.reasons.items()
    }
