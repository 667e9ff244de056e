"""Searches splits, slots, staleness and order of submission for the fastest plan.

Invariants:
* All plans of a seed are simulated on the same lengths, so gains are paired.
* A layout is left out only if its limit, a lower bound, is no better than a plan already found.
* No step is shorter than the limit: a finite run may be, by what had begun before its measured
  steps, but a long one is not.
* A gain's interval is the range over the seeds.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from verl_pipeline.planner.limits import Limit, average_limits, compute_limit
from verl_pipeline.planner.outcome import CAUSES, Outcome
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.schedules import (
    LARGEST_STALENESS,
    SYNC,
    Layout,
    Schedule,
    list_schedules,
)
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.splits import Split
from verl_pipeline.planner.workload import Workload, draw_workload

SEEDS = 5
# Trajectories of a simulated run; the fewest and the most steps; the share that warms up.
TRAJECTORIES, FEWEST_STEPS, MOST_STEPS, WARM_UP = 16_000, 15, 30, 0.4
# Of batches of more trajectories, fewer seeds are enough and all that patience allows.
LARGE_BATCH, LARGE_SEEDS = 2048, 2
# What a further update of staleness, other slots or another order must gain to be worth it.
WORTHWHILE = 0.005


@dataclass(frozen=True)
class Plan:
    """A schedule on a layout and what it is predicted to do.

    Attributes:
        step_s: mean seconds of a step, over the seeds.
        gains: of each seed: the step of `sync` over this one's.
        shares: of all GPU time, by :data:`outcome.CAUSES`.
        limit: what no schedule of this staleness can beat on this layout; None for `sync`.
        mean_age: updates by which the first token's weights lag behind those that train on it,
            minus the one that is inevitable.
    """

    schedule: Schedule
    layout: Layout
    split: Split | None
    step_s: float
    gains: tuple[float, ...]
    shares: dict[str, float]
    limit: Limit | None
    mean_age: float

    @property
    def gain(self) -> float:
        return statistics.fmean(self.gains)

    @property
    def nearness(self) -> float | None:
        """The limit over the step: 1 means that nothing can be faster."""
        return self.limit.step_s / self.step_s if self.limit else None

    def to_json(self) -> dict[str, Any]:
        """What a file holds about the plan."""
        return {
            "schedule": self.schedule.kind,
            "staleness": self.schedule.staleness,
            "built": not self.layout.longest_first,
            **dataclasses.asdict(self.layout),
            "step_s": self.step_s,
            "gain": {"mean": self.gain, "low": min(self.gains), "high": max(self.gains)},
            "mean_age": self.mean_age,
            "shares": self.shares,
            "limit": dataclasses.asdict(self.limit)
            | {"cause": self.limit.cause, "nearness": self.nearness}
            if self.limit
            else None,
        }


class Planner:
    """Simulates a profile's plans, each workload drawn once.

    Args:
        profile: of the cluster.
        seeds: how many workloads the best plan of a schedule is simulated on.
    """

    def __init__(self, profile: Profile, seeds: int = SEEDS):
        size = profile.sampling.trajectories
        self.profile = profile
        self.seeds = seeds if size <= LARGE_BATCH else min(seeds, LARGE_SEEDS)
        self.steps = max(FEWEST_STEPS, min(MOST_STEPS, TRAJECTORIES // size))
        self.warm_up = int(self.steps * WARM_UP)
        self._workloads: dict[int, Workload] = {}

    def find_workload(self, seed: int) -> Workload:
        """The workload of a seed, with enough batches for every schedule."""
        if seed not in self._workloads:
            batches = self.steps + LARGEST_STALENESS
            self._workloads[seed] = draw_workload(self.profile, batches, seed)
        return self._workloads[seed]

    def run(self, schedule: Schedule, layout: Layout, seed: int) -> Outcome:
        """Simulate one plan on one workload."""
        outcome = simulate(
            self.profile,
            schedule,
            layout,
            steps=self.steps,
            warm_up=self.warm_up,
            workload=self.find_workload(seed),
        )
        if schedule == SYNC:
            return outcome
        least = self.find_limit(schedule, layout, seed).step_s
        return dataclasses.replace(outcome, step_s=max(outcome.step_s, least))

    def find_limit(self, schedule: Schedule, layout: Layout, seed: int) -> Limit:
        """What the measured steps of a seed cannot beat in the long run, with two pools."""
        measured = self.find_workload(seed).select(self.warm_up, self.steps)
        return compute_limit(self.profile, measured, schedule, layout)

    @cached_property
    def sync(self) -> Plan:
        """`sync` on all GPUs."""
        return self._make_plan(SYNC, self._sync_layout, None, self._sync_outcomes)

    @property
    def _sync_layout(self) -> Layout:
        gpus = self.profile.gpus
        return Layout(gpus, gpus, self.profile.sampling.slots)

    @cached_property
    def _sync_outcomes(self) -> list[Outcome]:
        return [self.run(SYNC, self._sync_layout, seed) for seed in range(self.seeds)]

    def make_layout(self, split: Split) -> Layout:
        """The layout of a split with the profile's slots."""
        return Layout(split.rollout_gpus, split.trainer_gpus, self.profile.sampling.slots)

    def measure(self, schedule: Schedule, layout: Layout, split: Split) -> Plan:
        """Simulate a plan on all seeds."""
        outcomes = [self.run(schedule, layout, seed) for seed in range(self.seeds)]
        return self._make_plan(schedule, layout, split, outcomes)

    def find_best_split(
        self, schedule: Schedule, splits: Iterable[Split], first: Split | None = None
    ) -> Split:
        """The split that is fastest on the first seed.

        Args:
            first: is tried first, so that the limits of others rule them out sooner.
        """
        bounds = {
            split: self.find_limit(schedule, self.make_layout(split), 0).step_s for split in splits
        }
        best, fastest = None, float("inf")
        for split in sorted(bounds, key=lambda split: (split != first, bounds[split])):
            if bounds[split] >= fastest:
                continue
            step_s = self.run(schedule, self.make_layout(split), 0).step_s
            if step_s < fastest:
                best, fastest = split, step_s
        assert best is not None
        return best

    def find_best_plan(
        self, schedule: Schedule, splits: Sequence[Split], first: Split | None = None
    ) -> Plan:
        """The fastest split with the profile's slots, in the loader's order."""
        split = self.find_best_split(schedule, splits, first)
        return self.measure(schedule, self.make_layout(split), split)

    def refine(self, plan: Plan, longest_first: bool) -> Plan:
        """The plan with other slots, and handed out longest first if asked for.

        Slots are halved or doubled as long as that gains :data:`WORTHWHILE`.
        """
        assert plan.split is not None
        best = plan.layout
        if longest_first:
            best = dataclasses.replace(best, longest_first=True)
        fastest = self.run(plan.schedule, best, 0).step_s
        for factor in (0.5, 2.0):
            while True:
                layout = dataclasses.replace(best, slots=max(1, int(best.slots * factor)))
                step_s = self.run(plan.schedule, layout, 0).step_s
                if step_s >= fastest * (1 - WORTHWHILE):
                    break
                best, fastest = layout, step_s
        return plan if best == plan.layout else self.measure(plan.schedule, best, plan.split)

    def _make_plan(
        self,
        schedule: Schedule,
        layout: Layout,
        split: Split | None,
        outcomes: Sequence[Outcome],
    ) -> Plan:
        limit = None
        if split is not None:
            limit = average_limits(
                [self.find_limit(schedule, layout, seed) for seed in range(self.seeds)]
            )
        return Plan(
            schedule,
            layout,
            split,
            statistics.fmean(outcome.step_s for outcome in outcomes),
            tuple(
                sync.step_s / outcome.step_s
                for sync, outcome in zip(self._sync_outcomes, outcomes, strict=True)
            ),
            {
                cause: statistics.fmean(outcome.shares[cause] for outcome in outcomes)
                for cause in CAUSES
            },
            limit,
            statistics.fmean(outcome.mean_age for outcome in outcomes),
        )


def find_plans(
    planner: Planner,
    splits: Sequence[Split],
    *,
    all_staleness: bool = False,
    report: Callable[[str], None] = lambda _name: None,
) -> list[Plan]:
    """The best plan of each schedule, in the order of :func:`list_schedules`.

    Args:
        all_staleness: also where one more update of staleness gains less than
            :data:`WORTHWHILE`; then a kind ends by default.
        report: called with each schedule's name before it is simulated.
    """
    plans: list[Plan] = []
    ended: set[str] = set()
    for schedule in list_schedules() if splits else []:
        if schedule.kind in ended:
            continue
        report(str(schedule))
        before = [other for other in plans if other.schedule.kind == schedule.kind]
        plan = planner.find_best_plan(schedule, splits, before[-1].split if before else None)
        if (
            not all_staleness
            and not schedule.has_barrier
            and before
            and plan.gain < before[-1].gain * (1 + WORTHWHILE)
        ):
            ended.add(schedule.kind)
        plans.append(plan)
    return plans
