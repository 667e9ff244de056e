"""Simulates a run: one schedule on one layout over one drawn workload."""

from verl_pipeline.planner.barrier import run_with_barrier
from verl_pipeline.planner.flow import Flow
from verl_pipeline.planner.outcome import Outcome
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.workload import Workload, draw_workload


def simulate(
    profile: Profile,
    schedule: Schedule,
    layout: Layout,
    *,
    steps: int,
    warm_up: int,
    seed: int = 0,
    workload: Workload | None = None,
) -> Outcome:
    """Simulate ``steps`` steps and measure those after the first ``warm_up``.

    Args:
        workload: at least ``steps + schedule.staleness`` batches; drawn from ``seed`` if None.

    Raises:
        ValueError: no step is left to measure, or the workload is too short.
    """
    if not 0 <= warm_up < steps:
        raise ValueError(f"warm_up={warm_up}: must be at least 0 and below steps={steps}")
    batches = steps + schedule.staleness
    if workload is None:
        workload = draw_workload(profile, batches, seed)
    if len(workload.responses) < batches:
        raise ValueError(
            f"the workload has {len(workload.responses)} batches; {batches} are needed"
        )
    if schedule.has_barrier:
        return run_with_barrier(profile, workload, schedule, layout, steps, warm_up)
    return Flow(profile, workload, schedule, layout, steps).run(warm_up)
