"""Rules that end a stage, against their plain definition on any metrics."""

from hypothesis import assume, given
from hypothesis import strategies as st

from verl_pipeline.recipes.deepcoder.stages.end_rules import find_end_reason, list_rule_metrics
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    REWARD_METRIC,
    TRUNCATED_SHARE_METRIC,
    DevicePool,
    DevicePools,
    EndRules,
    PlateauRule,
    StageConfig,
    TruncatedShareRule,
)


def make_stage(last_step=100, **rules):
    pools = DevicePools(DevicePool(1, 1), DevicePool(1, 1))
    return StageConfig(last_step, 8, 4, 4, 4, pools, until=EndRules(**rules))


def make_metrics(name, values, first_step=0):
    return {first_step + index: {name: value} for index, value in enumerate(values, start=1)}


# A mean may be rounded differently there and here; at the limit itself either answer is right.
ROUNDING = 1e-9
shares = st.lists(st.floats(0, 1), max_size=12)


@given(
    values=shares, window=st.integers(1, 6), limit=st.floats(0, 1), first_step=st.integers(0, 50)
)
def test_truncated_share_is_the_mean_of_the_last_window(values, window, limit, first_step):
    step = first_step + len(values)
    stage = make_stage(truncated_share=TruncatedShareRule(above=limit, window=window))
    metrics = make_metrics(TRUNCATED_SHARE_METRIC, values, first_step)
    # Steps of the stage before do not count, whatever their values are.
    metrics |= {earlier: {TRUNCATED_SHARE_METRIC: 1.0} for earlier in range(first_step + 1)}
    mean = sum(values[-window:]) / window
    assume(abs(mean - limit) > ROUNDING)
    expected = len(values) >= window and mean > limit
    assert (find_end_reason(stage, metrics, first_step, step) is not None) == expected


def test_below_ends_a_stage_that_makes_responses_shorter():
    stage = make_stage(truncated_share=TruncatedShareRule(below=0.1, window=2))
    falling = make_metrics(TRUNCATED_SHARE_METRIC, [0.3, 0.05, 0.05])
    rising = make_metrics(TRUNCATED_SHARE_METRIC, [0.05, 0.05, 0.3])
    assert find_end_reason(stage, falling, 0, 3)
    assert find_end_reason(stage, rising, 0, 3) is None


@given(values=shares, window=st.integers(1, 5), gain=st.floats(-0.5, 0.5))
def test_plateau_compares_two_windows(values, window, gain):
    stage = make_stage(plateau=PlateauRule(gain, window=window))
    reason = find_end_reason(stage, make_metrics(REWARD_METRIC, values), 0, len(values))
    if len(values) < 2 * window:
        assert reason is None
    else:
        now, before = values[-window:], values[-2 * window : -window]
        difference = sum(now) / window - sum(before) / window
        assume(abs(difference - gain) > ROUNDING)
        assert (reason is not None) == (difference < gain)


def test_steps_after_the_checkpoint_do_not_count():
    stage = make_stage(truncated_share=TruncatedShareRule(above=0.5, window=2))
    metrics = make_metrics(TRUNCATED_SHARE_METRIC, [0.1, 0.1, 0.9, 0.9])
    assert find_end_reason(stage, metrics, 0, 2) is None


def test_a_lost_step_is_left_out_of_the_mean():
    metrics = make_metrics(TRUNCATED_SHARE_METRIC, [0.9, 0.9, 0.1])
    del metrics[3]
    two_steps = make_stage(truncated_share=TruncatedShareRule(above=0.5, window=2))
    one_step = make_stage(truncated_share=TruncatedShareRule(above=0.5, window=1))
    assert find_end_reason(two_steps, metrics, 0, 3)
    assert find_end_reason(one_step, metrics, 0, 3) is None


def test_the_last_step_ends_the_stage_whatever_the_rules_say():
    stage = make_stage(last_step=3, truncated_share=TruncatedShareRule(above=0.5, window=1))
    assert find_end_reason(stage, {}, 0, 3) == "last_step 3"
    assert find_end_reason(stage, {}, 0, 2) is None


def test_the_reason_has_the_numbers():
    stage = make_stage(plateau=PlateauRule(0.1, window=1))
    reason = find_end_reason(stage, make_metrics(REWARD_METRIC, [0.5, 0.55]), 0, 2)
    assert (
        reason
        == "plateau: filters/before/reward_mean 0.5 -> 0.55, a gain below 0.1 (means of 1 steps)"
    )


def test_the_metrics_of_the_rules_are_listed():
    assert list_rule_metrics(make_stage()) == []
    stage = make_stage(truncated_share=TruncatedShareRule(above=0.5), plateau=PlateauRule(0.1))
    assert list_rule_metrics(stage) == [TRUNCATED_SHARE_METRIC, REWARD_METRIC]
