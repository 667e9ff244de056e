"""The search, the answer in words, and the room's imports."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.planner_cases import make_small
from verl_pipeline.planner.answer import SLOWER, STAY, USE, choose_plan, make_answer
from verl_pipeline.planner.estimate import Estimate
from verl_pipeline.planner.plan import Planner, find_plans
from verl_pipeline.planner.plan_report import make_report
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.schedules import Schedule
from verl_pipeline.planner.splits import count_nodes, list_splits, read_split

MODES = [Schedule("drained", 0), Schedule("drained", 1), Schedule("in_flight", 2)]


def answer(profile, schedules=MODES, seeds=2):
    planner = Planner(profile, seeds)
    splits = list_splits(profile)
    plans = [planner.find_best_plan(schedule, splits) for schedule in schedules if splits]
    return make_answer(profile, planner.sync, plans)


def test_a_room_of_its_own():
    code = (
        "import pkgutil, sys, importlib, verl_pipeline.planner as room\n"
        "for module in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module(f'verl_pipeline.planner.{module.name}')\n"
        "print(sorted({'torch', 'verl', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "verdict", "cause"),
    [
        ("training_bound_8xh100", SLOWER, "Training is 90 % of a step of sync"),
        ("small_cluster_2xa100", SLOWER, "hiding the sampling gains little"),
        ("deepcoder_code_8xa100", USE, "Use one_off_pipeline, drained at staleness 1 with"),
        ("reward_bound_8xh100", USE, "Use one_off_pipeline, drained at staleness 1 with"),
    ],
)
def test_the_answer_of_known_cases(name, verdict, cause):
    found = answer(load_profile(Path(name)), [Schedule("drained", 1)], seeds=1)
    assert (found.verdict, cause in found.sentence) == (verdict, True), found.sentence
    mode = "one_off_pipeline" if verdict == USE else "sync"
    assert found.overrides[0] == f"trainer.v1.trainer_mode={mode}"


def test_overrides_are_those_of_the_split():
    found = answer(load_profile(Path("deepcoder_code_8xa100")), [Schedule("drained", 1)], seeds=1)
    assert found.plan is not None and found.plan.split is not None
    split = found.plan.split
    assert f"trainer.n_gpus_per_node={split.trainer_per_node}" in found.overrides
    assert f"actor_rollout_ref.rollout.n_gpus_per_node={split.rollout_per_node}" in found.overrides
    # Drained at 1 is the default.
    assert not any("staleness" in line or "sync_mode" in line for line in found.overrides)


def test_a_mode_past_the_barrier_is_recommended_with_its_settings():
    profile = load_profile(Path("deepcoder_math_8xa100"))
    found = answer(profile, [Schedule("drained", 1), Schedule("in_flight", 2)], seeds=1)
    assert found.sentence.startswith("Use one_off_pipeline, in_flight at staleness 2 with")
    assert "Samples are then up to 2 updates old" in found.sentence
    key = "+trainer.v1.one_off_pipeline"
    assert found.overrides[-2:] == (f"{key}.weight_sync_mode=in_flight", f"{key}.staleness=2")


def test_of_plans_that_gain_the_same_the_simplest_is_chosen():
    profile = make_small()
    planner, splits = Planner(profile, 1), list_splits(make_small())

    def choose(*gains):
        plans = [
            dataclasses.replace(
                planner.measure(schedule, planner.make_layout(splits[0]), splits[0]), gains=(gain,)
            )
            for schedule, gain in gains
        ]
        chosen = choose_plan(plans)
        return chosen and str(chosen.schedule)

    drained, rolling, in_flight = Schedule("drained", 1), Schedule("rolling", 3), "in_flight"
    assert choose((Schedule("one_step_off", 1), 2.0)) is None
    assert choose((drained, 1.99), (rolling, 2.0)) == "drained s=1"
    assert choose((drained, 1.97), (rolling, 2.0), (Schedule(in_flight, 1), 2.0)) == "rolling s=3"
    flights = [(Schedule(in_flight, s), gain) for s, gain in [(1, 1.97), (2, 1.99), (3, 2.0)]]
    assert choose((drained, 1.0), *flights) == "in_flight s=2"


def test_no_step_beats_the_limit_of_a_long_run():
    """Slow rewards: at first their workers have a backlog that hides how slow they are."""
    profile = load_profile(Path("reward_bound_8xh100"))
    planner = Planner(profile, 1)
    split = read_split(profile, "3:5")
    plan = planner.measure(Schedule("in_flight", 4), planner.make_layout(split), split)
    assert plan.limit is not None and plan.limit.cause == "reward"
    assert plan.nearness == pytest.approx(1.0)


def test_a_small_gain_is_not_worth_it():
    profile = make_small(weights={"publish_s": 0.0, "load_s": 0.0, "switch_s": 0.0})
    planner = Planner(profile, 1)
    plan = planner.find_best_plan(Schedule("drained", 1), list_splits(profile))
    for gain, verdict in [(1.05, USE), (1.049, STAY), (1.0, STAY), (0.999, SLOWER)]:
        changed = dataclasses.replace(plan, gains=(gain,))
        assert make_answer(profile, planner.sync, [changed]).verdict == verdict


def test_one_gpu_cannot_be_split():
    found = answer(make_small(gpus=1))
    assert found.verdict == STAY and "no split of 1 GPU " in found.sentence
    assert found.overrides == ("trainer.v1.trainer_mode=sync",)


@given(
    st.integers(1, 200), st.integers(1, 16), st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 16)
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_splits_can_be_placed(gpus, per_node, parallel, fewest):
    if parallel > gpus or fewest > gpus:
        return
    profile = make_small(
        gpus=gpus,
        gpus_per_node=per_node,
        sampling__tensor_parallel=parallel,
        training__fewest_gpus=fewest,
    )
    splits, nodes = list_splits(profile), count_nodes(profile)
    assert gpus // nodes <= per_node
    assert len({split.rollout_gpus for split in splits}) == len(splits) <= 16
    for split in splits:
        assert split.rollout_gpus + split.trainer_gpus == gpus
        assert split.rollout_gpus % parallel == 0 and split.trainer_gpus >= fewest
        share = split.rollout_per_node + split.trainer_per_node <= gpus // nodes
        assert share or split.rollout_nodes + split.trainer_nodes <= nodes
        assert read_split(profile, f"{split.rollout_gpus}:{split.trainer_gpus}") == split


@pytest.mark.parametrize("text", ["4", "a:b", "3:2", "0:4", "4:0", ""])
def test_an_impossible_split_is_refused_with_the_possible_ones(text):
    with pytest.raises(ProfileError, match="--split"):
        read_split(make_small(), text)


def test_no_split_is_faster_than_the_one_found():
    """The limits rule out nothing that is better: all splits, simulated one by one."""
    profile = make_small(gpus=8, sampling__prompts=8)
    planner = Planner(profile, 1)
    splits = list_splits(profile)
    assert len(splits) == 7
    for schedule in (*MODES, Schedule("rolling", 1), Schedule("in_flight", 4)):
        steps = {
            split: planner.run(schedule, planner.make_layout(split), 0).step_s for split in splits
        }
        assert planner.find_best_split(schedule, splits) == min(steps, key=steps.__getitem__)


def test_every_schedule_has_a_plan_below_its_limit():
    profile = make_small()
    planner = Planner(profile, 2)
    plans = find_plans(planner, list_splits(profile), all_staleness=True)
    assert [str(plan.schedule) for plan in plans[:3]] == [
        "one_step_off",
        "drained s=0",
        "drained s=1",
    ]
    assert len(plans) == 3 + 2 * 8
    for plan in plans:
        assert plan.nearness is not None and plan.nearness <= 1 + 1e-9, plan
        assert min(plan.gains) <= plan.gain <= max(plan.gains)
        assert plan.mean_age <= plan.schedule.staleness


def test_a_kind_ends_when_staleness_gains_no_more():
    profile = make_small(training__update_s=500.0)
    plans = find_plans(Planner(profile, 1), list_splits(profile))
    assert [p.schedule.staleness for p in plans if p.schedule.kind == "in_flight"] == [1, 2]


def test_other_slots_and_order_are_kept_if_they_gain():
    profile = make_small(sampling__slots=1, sampling__prompts=16)
    planner = Planner(profile, 1)
    split = read_split(profile, "2:2")
    plan = planner.measure(Schedule("drained", 1), planner.make_layout(split), split)
    refined = planner.refine(plan, longest_first=True)
    assert refined.layout.slots in (2, 4, 8, 16, 32) and refined.layout.longest_first
    assert refined.gain > plan.gain
    assert not refined.to_json()["built"]


def test_the_report_has_sensitivity_and_cost():
    report = make_report(
        Estimate(make_small()), gpus=None, split="2:2", price=2.0, seeds=1, show=lambda name: None
    )
    names = [change.name for change in report.changes]
    assert "twice the response length" in names and "rewards four times as slow" in names
    slower, faster = (
        next(change.gain for change in report.changes if change.name == f"training {name}")
        for name in ("half as fast", "twice as fast")
    )
    assert slower != faster
    content = report.to_json()
    for plan in content["plans"]:
        hours = 4 * plan["step_s"] * 100 / 3600
        assert plan["per_100_steps"] == pytest.approx({"gpu_hours": hours, "money": 2 * hours})
        assert sum(plan["shares"].values()) == pytest.approx(1.0)
