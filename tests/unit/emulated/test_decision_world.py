"""The schedule's decisions do what the planner simulates, and a slow replica stops nobody."""

import numpy as np
import pytest

from tests.helpers.planner_cases import make_small
from verl_pipeline.emulated.decision_world import DecisionWorld
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.workload import draw_workload
from verl_pipeline.trainer.schedule import Dial

STEPS = 12
LAYOUT = Layout(3, 1, 16)
PROFILE = make_small(
    sampling__prompts=16, sampling__samples=2, weights__load_s=5.0, weights__publish_s=3.0
)


def run(mode, staleness, slow):
    workload = draw_workload(PROFILE, STEPS + staleness, 0)
    dial = Dial(mode, staleness)
    return np.array(DecisionWorld(PROFILE, workload, dial, LAYOUT, STEPS, slow).run())


@pytest.mark.parametrize("mode", ["drained", "rolling", "in_flight"])
@pytest.mark.parametrize("staleness", [1, 2, 4])
def test_equal_replicas_are_as_fast_as_the_planner_says(mode, staleness):
    if mode == "drained" and staleness > 1:
        return
    outcome = simulate(PROFILE, Schedule(mode, staleness), LAYOUT, steps=STEPS, warm_up=1)
    # The last batches have nothing beside them, but the planner's always have.
    full = STEPS - staleness
    assert run(mode, staleness, {})[full - 1] == pytest.approx(outcome.ends[full - 1], rel=0.06)


def test_past_the_barrier_a_slow_replica_costs_less():
    cost = {}
    for mode, staleness in [("drained", 1), ("rolling", 2), ("in_flight", 2)]:
        fast, slow = (run(mode, staleness, slow)[-1] for slow in ({}, {0: 10.0}))
        cost[mode] = slow / fast
        assert 1 < cost[mode] < 10.5
    assert cost["rolling"] < cost["drained"] and cost["in_flight"] < cost["drained"]
