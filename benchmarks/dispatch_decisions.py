"""What the schedule's decisions do on the profiles, beside the planner and verl's `separate_async`
at the same bound on age; and with a slow replica.

``python -m benchmarks.dispatch_decisions [--output results.json]``, from the repository's folder;
some minutes of one core. Decisions, the dispatcher's book and the emulated replicas are the real
ones, in virtual time and without verl or Ray (:mod:`verl_pipeline.emulated.decision_world`); what
verl does is :mod:`benchmarks.ahead_world`. So many modes and splits can be tried in long runs;
:mod:`benchmarks.emulated_cluster` runs some of them with both.
"""

from pathlib import Path
from typing import Any

import typer

from benchmarks.ahead_world import AheadWorld
from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.emulated.decision_world import DecisionWorld
from verl_pipeline.planner.limits import compute_limit
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import list_profiles, load_profile
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.splits import list_splits
from verl_pipeline.planner.workload import draw_workload
from verl_pipeline.trainer.schedule import Dial

RESULTS = Path("benchmarks/results/dispatch_decisions.json")
SCHEDULES = [
    Schedule("drained", 1),
    *(Schedule(kind, staleness) for kind in ("rolling", "in_flight") for staleness in (1, 2, 4)),
    # Where the cache of a pool is its limit, 4 still leaves slots free for want of what may begin.
    Schedule("in_flight", 5),
]
# Steps of a run, by the trajectories of a batch, and the first ones that do not count; the last do
# not, either, as far as the schedule runs ahead, since nothing is sampled beside their batches.
TRAJECTORIES, FEWEST_STEPS, MOST_STEPS, WARM_UP = 40_000, 15, 40, 6
# Large batches, for which the search for the best splits takes long: those of verl's pages.
VERLS_SPLITS = {"verl_dapo_7b_16xh20": (4, 12), "moe_30b_128xh20": (96, 32)}
# By profile and mode, layouts on which other seeds are measured, too: the fastest.
SPREAD_SEEDS = range(1, 5)
SPREAD_LAYOUTS = {
    "deepcoder_code_8xa100": {"drained:1": (4, 4), "in_flight:1": (4, 4), "in_flight:2": (2, 6)},
    "deepcoder_math_8xa100": {"drained:1": (5, 3), "in_flight:1": (4, 4), "in_flight:2": (3, 5)},
}
SLOW_PROFILE, SLOW_LAYOUT = "deepcoder_code_8xa100", (4, 4)
SLOW_SCHEDULES = [Schedule("drained", 1), Schedule("rolling", 2), Schedule("in_flight", 2)]
FACTORS = [1.0, 2.0, 10.0]


def count_steps(profile: Profile) -> int:
    """Steps of a run."""
    return max(FEWEST_STEPS, min(MOST_STEPS, TRAJECTORIES // profile.sampling.trajectories))


def measure(
    profile: Profile, schedule: Schedule, layout: Layout, seed: int, slow: dict[int, float]
) -> dict[str, Any]:
    """Seconds of a step by our decisions, by the planner (of equal replicas), and the limit."""
    steps = count_steps(profile)
    staleness, last = schedule.staleness, steps - schedule.staleness
    workload = draw_workload(profile, steps + staleness, seed)
    dial = Dial(schedule.kind, staleness)
    ends = DecisionWorld(profile, workload, dial, layout, steps, slow).run()
    found: dict[str, Any] = {
        "profile": profile.name,
        "mode": f"{schedule.kind}:{staleness}",
        "split": f"{layout.rollout_gpus}:{layout.trainer_gpus}",
        "slots": layout.slots,
        "seed": seed,
        "steps": last - WARM_UP,
        "slow": {str(place): factor for place, factor in slow.items()},
        "step_s": (ends[last - 1] - ends[WARM_UP - 1]) / (last - WARM_UP),
    }
    if slow:
        return found
    outcome = simulate(profile, schedule, layout, steps=steps, warm_up=WARM_UP, workload=workload)
    expected = (outcome.ends[last - 1] - outcome.ends[WARM_UP - 1]) / (last - WARM_UP)
    limit = compute_limit(profile, workload.select(WARM_UP, last), schedule, layout)
    return found | {
        "planner_s": float(expected),
        "error": float(expected) / found["step_s"] - 1,
        "limit_s": limit.step_s,
        "limit_cause": limit.cause,
        "of_limit": limit.step_s / found["step_s"],
    }


def measure_ahead(
    profile: Profile, schedule: Schedule, layout: Layout, seed: int
) -> dict[str, Any]:
    """Seconds of a step of verl's `separate_async` in the same steps, and its largest age."""
    steps = count_steps(profile)
    ahead, last = schedule.staleness, steps - schedule.staleness
    world = AheadWorld(profile, draw_workload(profile, steps + ahead, seed), ahead, layout, steps)
    ends = world.run()
    step_s = (ends[last - 1] - ends[WARM_UP - 1]) / (last - WARM_UP)
    return {"separate_async_s": step_s, "separate_async_age": world.largest_age}


def measure_profile(name: str) -> list[dict[str, Any]]:
    """Every schedule at the planner's best split and slots for it, and at those for `drained`."""
    profile = load_profile(Path(name))
    planner, splits = Planner(profile, 1), list_splits(profile)
    sync = {"sync_s": planner.sync.step_s}
    results = []
    if split := VERLS_SPLITS.get(name):
        common = Layout(*split, profile.sampling.slots)
    else:
        common = planner.find_best_plan(SCHEDULES[0], splits).layout
    for schedule in SCHEDULES:
        layouts = [common]
        if not split:
            layouts.append(planner.refine(planner.find_best_plan(schedule, splits), False).layout)
        for layout in dict.fromkeys(layouts):
            result = measure(profile, schedule, layout, 0, {}) | sync
            result |= measure_ahead(profile, schedule, layout, 0)
            results.append(result | {"gain": planner.sync.step_s / result["step_s"]})
    return results


def measure_spread() -> list[dict[str, Any]]:
    """The fastest modes of the main profiles on other lengths."""
    results = []
    for name, layouts in SPREAD_LAYOUTS.items():
        profile = load_profile(Path(name))
        for mode, split in layouts.items():
            kind, staleness = mode.split(":")
            schedule = Schedule(kind, int(staleness))
            layout = Layout(*split, profile.sampling.slots)
            for seed in SPREAD_SEEDS:
                result = measure(profile, schedule, layout, seed, {})
                results.append(result | measure_ahead(profile, schedule, layout, seed))
    return results


def measure_slow() -> list[dict[str, Any]]:
    """One replica slower than the others, by several factors; and a pool without it."""
    profile = load_profile(Path(SLOW_PROFILE))
    rollout, trainer = SLOW_LAYOUT
    layout = Layout(rollout, trainer, profile.sampling.slots)
    without = Layout(rollout - 1, trainer, profile.sampling.slots)
    results = []
    for schedule in SLOW_SCHEDULES:
        alone = measure(profile, schedule, without, 0, {})["step_s"]
        for factor in FACTORS:
            result = measure(profile, schedule, layout, 0, {0: factor})
            results.append(result | {"without_it_s": alone})
    return results


def count_trajectories(name: str) -> int:
    """Trajectories of a batch: what a run costs."""
    return load_profile(Path(name)).sampling.trajectories


def main(output: ReportOption = RESULTS) -> None:
    """Measure every profile of the package, then the slow replica."""
    settings = {"warm_up": WARM_UP}
    results = [*measure_slow(), *measure_spread()]
    for name in sorted(list_profiles(), key=count_trajectories):
        typer.echo(f"{name} ...", err=True)
        results += measure_profile(name)
        write_report(output, "dispatch_decisions", settings, results)
    columns = [
        "profile",
        "mode",
        "split",
        "slots",
        "seed",
        "slow",
        "step_s",
        "planner_s",
        "separate_async_s",
        "gain",
        "of_limit",
    ]
    rows = [
        {name: result.get(name) for name in columns}
        | {"slow": max(result["slow"].values(), default=1)}
        for result in results
    ]
    print_table(rows, columns)


if __name__ == "__main__":
    typer.run(main)
