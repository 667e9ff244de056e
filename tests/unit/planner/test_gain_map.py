"""The map around a profile: where it lies, and that its cells are what the planner finds there."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.planner_cases import make_small
from verl_pipeline.planner.gain_map import (
    AXES,
    SCHEDULE,
    Axes,
    find_place,
    map_gains,
    set_sampling_share,
)
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.splits import list_splits


@pytest.mark.parametrize(
    "name", ["deepcoder_code_8xa100", "deepcoder_math_8xa100", "small_cluster_2xa100"]
)
def test_the_cell_at_a_profiles_place_is_its_plan(name):
    """Lognormal lengths; rewards in `sync` after the sampling, or none."""
    profile = load_profile(Path(name))
    own = find_place(profile)
    sigma = profile.sampling.response_tokens.sigma
    axes = Axes((own.sampling_share,), (sigma,), (own.reward_share,), (1.0,))
    (cell,) = map_gains(profile, axes=axes)
    planner = Planner(profile, seeds=2)
    plan = planner.find_best_plan(SCHEDULE, list_splits(profile))
    assert cell.gain == pytest.approx(plan.gain, rel=0.04)
    assert cell.sync_s == pytest.approx(planner.sync.step_s, rel=0.04)


def test_every_cell_is_there_and_progress_is_told():
    told = []
    cells = map_gains(make_small(gpus_per_node=4), told.append)
    counts = {cell.place.gpus for cell in cells}
    assert counts == {2, 4, 8}
    assert len({cell.place for cell in cells}) == len(cells)
    assert len(cells) == len(AXES.shares) * len(AXES.sigmas) * len(AXES.reward_shares) * 3
    assert len(told) == len(AXES.sigmas) * 3
    for cell in cells:
        assert cell.gain == pytest.approx(cell.sync_s / cell.step_s)
        assert cell.rollout_gpus + cell.trainer_gpus == cell.place.gpus


def test_gpus_that_no_split_fits_are_left_out():
    cells = map_gains(make_small(gpus=2, training__gpus=2))
    assert {cell.place.gpus for cell in cells} == {2, 4}
    assert map_gains(make_small(gpus=1), axes=Axes(gpu_factors=(1.0,))) == []


@given(st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_share_of_sampling_is_the_one_that_was_set(share):
    profile = make_small(sampling__response_tokens=200)
    changed = set_sampling_share(profile, share)
    assert find_place(changed).sampling_share == pytest.approx(share)


def test_rewards_cost_more_where_two_pools_cannot_hide_them():
    axes = Axes((0.5,), (0.4,), (0.0, 1.0), (1.0,))
    _, streamed = map_gains(make_small(), axes=axes)
    _, after = map_gains(make_small(reward__streamed_in_sync=False), axes=axes)
    assert after.gain > streamed.gain
