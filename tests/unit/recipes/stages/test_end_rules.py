"""Rules against a direct reading of their words, on any metrics."""

from hypothesis import given
from hypothesis import strategies as st

from recipes.deepcoder.stages.end_rules import ended, needed
from recipes.deepcoder.stages.stage_config import (
    REWARD,
    TRUNCATED_SHARE,
    Plateau,
    Pool,
    Pools,
    Stage,
    TruncatedShare,
    Until,
)


def stage(last_step=100, **until):
    return Stage(last_step, 8, 4, 4, 4, Pools(Pool(1, 1), Pool(1, 1)), until=Until(**until))


def metrics(name, values, first_step=0):
    return {first_step + index: {name: value} for index, value in enumerate(values, start=1)}


shares = st.lists(st.floats(0, 1), max_size=12)


@given(
    values=shares, window=st.integers(1, 6), limit=st.floats(0, 1), first_step=st.integers(0, 50)
)
def test_truncated_share_is_the_mean_of_the_last_window(values, window, limit, first_step):
    step = first_step + len(values)
    rule = stage(truncated_share=TruncatedShare(above=limit, window=window))
    recorded = metrics(TRUNCATED_SHARE, values, first_step)
    # Steps of the stage before do not count, however bad they were.
    recorded |= {earlier: {TRUNCATED_SHARE: 1.0} for earlier in range(first_step + 1)}
    expected = len(values) >= window and sum(values[-window:]) / window > limit
    assert (ended(rule, recorded, first_step, step) is not None) == expected


def test_below_is_for_a_stage_that_makes_responses_shorter():
    rule = stage(truncated_share=TruncatedShare(below=0.1, window=2))
    assert ended(rule, metrics(TRUNCATED_SHARE, [0.3, 0.05, 0.05]), 0, 3)
    assert ended(rule, metrics(TRUNCATED_SHARE, [0.05, 0.05, 0.3]), 0, 3) is None


@given(values=shares, window=st.integers(1, 5), gain=st.floats(-0.5, 0.5))
def test_plateau_compares_two_windows(values, window, gain):
    found = ended(
        stage(plateau=Plateau(gain, window=window)), metrics(REWARD, values), 0, len(values)
    )
    if len(values) < 2 * window:
        assert found is None
    else:
        now, before = values[-window:], values[-2 * window : -window]
        assert (found is not None) == (sum(now) / window - sum(before) / window < gain)


def test_steps_after_the_checkpoint_do_not_count():
    rule = stage(truncated_share=TruncatedShare(above=0.5, window=2))
    assert ended(rule, metrics(TRUNCATED_SHARE, [0.1, 0.1, 0.9, 0.9]), 0, 2) is None


def test_a_lost_step_is_left_out_of_the_mean():
    recorded = metrics(TRUNCATED_SHARE, [0.9, 0.9, 0.1])
    del recorded[3]
    assert ended(stage(truncated_share=TruncatedShare(above=0.5, window=2)), recorded, 0, 3)
    assert ended(stage(truncated_share=TruncatedShare(above=0.5, window=1)), recorded, 0, 3) is None


def test_the_last_step_ends_it_in_any_case_and_first():
    rule = stage(last_step=3, truncated_share=TruncatedShare(above=0.5, window=1))
    assert ended(rule, {}, 0, 3) == "last_step 3"
    assert ended(rule, {}, 0, 2) is None


def test_the_reason_has_the_numbers():
    reason = ended(stage(plateau=Plateau(0.1, window=1)), metrics(REWARD, [0.5, 0.55]), 0, 2)
    assert (
        reason
        == "plateau: filters/before/reward_mean 0.5 -> 0.55, a gain below 0.1 (means of 1 steps)"
    )


def test_what_the_rules_read():
    assert needed(stage()) == []
    assert needed(stage(truncated_share=TruncatedShare(above=0.5), plateau=Plateau(0.1))) == [
        TRUNCATED_SHARE,
        REWARD,
    ]
