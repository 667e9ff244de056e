"""All schedules on the same work: `sync` takes what the planner says, nobody does two things."""

import pytest

from tests.helpers.planner_cases import make_small
from verl_pipeline.emulated.schedule_runs import (
    STEPS,
    SYNC,
    WARM_UP,
    WIND_DOWN,
    make_world,
    run_schedules,
)
from verl_pipeline.planner.schedules import Layout
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.workload import draw_workload


@pytest.mark.parametrize("streamed", [True, False])
def test_sync_takes_what_the_planner_says(streamed):
    profile = make_small(reward__seconds=6.0, reward__streamed_in_sync=streamed)
    workload = draw_workload(profile, STEPS, 0)
    layout = Layout(profile.gpus, profile.gpus, profile.sampling.slots)
    ends = make_world(profile, workload, SYNC, layout).run()
    expected = simulate(profile, SYNC, layout, steps=STEPS, warm_up=1, workload=workload).ends
    # The planner's first step changes the devices, too.
    assert ends[-1] - ends[0] == pytest.approx(expected[-1] - expected[0], rel=0.02)


def test_every_schedule_has_the_same_work_and_a_gain_over_sync():
    runs = run_schedules(make_small())
    assert [run.schedule.kind for run in runs] == ["sync", "drained", "rolling", "in_flight"]
    sync = runs[0]
    assert sync.gain == 1.0
    for run in runs:
        assert run.world.workload is sync.world.workload
        assert run.gain == pytest.approx(sync.step_s / run.step_s)
        assert 0 < run.trainer_share <= 1
        assert len(run.world.ends) == STEPS and WARM_UP + WIND_DOWN < STEPS


def test_a_trainer_does_one_thing_at_a_time_and_each_replica_ends_with_nothing():
    for run in run_schedules(make_small()):
        spans = run.world.trainer
        assert [span.number for span in spans if span.name == "update"] == list(range(1, STEPS + 1))
        for before, after in zip(spans, spans[1:], strict=False):
            assert before.end <= after.start + 1e-9
        for curve in run.world.running:
            assert curve[-1][1] == 0 and max(count for _, count in curve) > 0
        assert all(loads for loads in run.world.loads)
