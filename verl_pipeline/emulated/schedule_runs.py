"""Every schedule on the same work and GPUs, in virtual time: ``verl-pipeline demo``.

Invariants:
* All have the same drawn lengths and rewards; steps are compared with the same steps of `sync`.
* `sync` is the same decisions at staleness 0 with all GPUs in both pools, which change in turns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from verl_pipeline.emulated.decision_world import DecisionWorld
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.splits import list_splits
from verl_pipeline.planner.workload import Workload, draw_workload
from verl_pipeline.trainer.schedule import DRAINED, Dial

SYNC = Schedule("sync")
SHOWN = (SYNC, Schedule("drained", 1), Schedule("rolling", 2), Schedule("in_flight", 2))
# Steps of a run; the first do not count, as pools fill, nor the last, as nothing runs beside them.
STEPS, WARM_UP, WIND_DOWN = 14, 4, 2


@dataclass(frozen=True)
class ScheduleRun:
    """One schedule on the work.

    Attributes:
        step_s: mean of the steps that count, in seconds of the cluster.
        gain: of `sync`'s mean of the same steps over it.
        begin: when the first step that counts begins, in virtual seconds.
    """

    schedule: Schedule
    layout: Layout
    world: DecisionWorld
    step_s: float
    gain: float
    begin: float

    @property
    def trainer_share(self) -> float:
        """Of the time that counts, in which the trainer updates."""
        end = self.begin + self.step_s * (STEPS - WARM_UP - WIND_DOWN)
        busy = sum(
            max(0.0, min(span.end, end) - max(span.start, self.begin))
            for span in self.world.trainer
            if span.name == "update"
        )
        return busy / (end - self.begin)


def run_schedules(
    profile: Profile, seed: int = 0, show: Callable[[str], None] = lambda name: None
) -> list[ScheduleRun]:
    """Run :data:`SHOWN`, each on the split that the planner finds best for it.

    Args:
        show: is told which schedule is run.

    Raises:
        ProfileError: the cluster has no two pools.
    """
    most = max(schedule.staleness for schedule in SHOWN)
    workload = draw_workload(profile, STEPS + most, seed)
    planner, splits = Planner(profile, 1), list_splits(profile)
    if not splits:
        raise ProfileError(
            f"gpus={profile.gpus}: no two pools, of which one holds a replica "
            f"(sampling.tensor_parallel={profile.sampling.tensor_parallel}) and one the trainer "
            f"(training.fewest_gpus={profile.training.fewest_gpus}); give it more"
        )
    found: list[ScheduleRun] = []
    for schedule in SHOWN:
        show(str(schedule))
        if schedule == SYNC:
            layout = Layout(profile.gpus, profile.gpus, profile.sampling.slots)
        else:
            layout = planner.find_best_plan(schedule, splits).layout
        world = make_world(profile, workload, schedule, layout)
        ends = world.run()
        first, last = ends[WARM_UP - 1], ends[STEPS - WIND_DOWN - 1]
        step_s = (last - first) / (STEPS - WIND_DOWN - WARM_UP)
        gain = found[0].step_s / step_s if found else 1.0
        found.append(ScheduleRun(schedule, layout, world, step_s, gain, first))
    return found


def make_world(
    profile: Profile, workload: Workload, schedule: Schedule, layout: Layout
) -> DecisionWorld:
    """A world that has not run yet."""
    if schedule != SYNC:
        dial = Dial(schedule.kind, schedule.staleness)
        return DecisionWorld(profile, workload, dial, layout, STEPS, {})
    # Nothing is sent between pools that are one, but they take time to change.
    weights = replace(profile.weights, publish_s=0.0, load_s=profile.weights.switch_s)
    return DecisionWorld(
        replace(profile, weights=weights),
        workload,
        Dial(DRAINED, 0),
        layout,
        STEPS,
        {},
        streams_rewards=profile.reward.streamed_in_sync,
    )
