"""What a checkpoint costs: the trainer's wait for the rollout pool, and seconds of the whole run.

``python -m benchmarks.checkpoint_cost [--output results.json]``, from the
repository's folder; a minute of one core, in virtual time
(:mod:`verl_pipeline.emulated.decision_world`). Each mode runs the same batches with a
checkpoint every ``EVERY`` steps and without any.
"""

import statistics
from pathlib import Path
from typing import Any

import typer

from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.emulated.decision_world import DecisionWorld
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.schedules import Layout
from verl_pipeline.planner.workload import draw_workload
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING, Dial

RESULTS = Path("benchmarks/results/checkpoint_cost.json")
# Profile, devices that sample and that train.
CLUSTERS = [("deepcoder_code_8xa100", 4, 4), ("dense_32b_64xh100", 32, 32)]
# Dial, and whether a checkpoint drains the pool.
MODES = [
    (Dial(DRAINED, 1), True),
    (Dial(DRAINED, 1), False),
    (Dial(ROLLING, 2), False),
    (Dial(IN_FLIGHT, 2), False),
]
STEPS, EVERY, SEEDS = 24, 4, range(3)
# Of the trainer, for one checkpoint.
WRITE_S = 30.0


def measure(
    name: str, rollout: int, trainer: int, dial: Dial, drains: bool, seed: int
) -> dict[str, Any]:
    """One pair of runs."""
    profile = load_profile(Path(name))
    workload = draw_workload(profile, STEPS + dial.staleness, seed)
    layout = Layout(rollout, trainer, profile.sampling.slots)
    # None at the end, where nothing is sampled any more.
    steps = range(EVERY, STEPS - dial.staleness, EVERY)
    without = DecisionWorld(profile, workload, dial, layout, STEPS, {})
    beside = DecisionWorld(profile, workload, dial, layout, STEPS, {}, steps, WRITE_S, drains)
    end, later = without.run()[-1], beside.run()[-1]
    return {
        "profile": name,
        "mode": f"{dial.mode}:{dial.staleness}",
        "drains": drains,
        "seed": seed,
        "step_s": end / STEPS,
        "wait_s": statistics.mean(beside.waits),
        "cost_s": (later - end) / len(steps),
    }


def main(output: ReportOption = RESULTS) -> None:
    """Run all modes on all clusters, and print the medians over seeds."""
    found = [
        measure(*cluster, dial, drains, seed)
        for cluster in CLUSTERS
        for dial, drains in MODES
        for seed in SEEDS
    ]
    arguments = {"steps": STEPS, "every": EVERY, "write_s": WRITE_S}
    write_report(output, "checkpoint_cost", arguments, {"runs": found})
    rows = make_rows(found)
    print_table(rows, list(rows[0]))


def make_rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a cluster and mode: medians, and the range of the costs."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for run in found:
        groups.setdefault((run["profile"], run["mode"], run["drains"]), []).append(run)
    rows = []
    for (profile, mode, drains), runs in groups.items():
        costs = sorted(run["cost_s"] for run in runs)
        rows.append(
            {
                "profile": profile,
                "mode": mode,
                "drains": "yes" if drains else "no",
                "step, s": statistics.median(run["step_s"] for run in runs),
                "wait, s": statistics.median(run["wait_s"] for run in runs),
                "cost of a checkpoint, s": statistics.median(costs),
                "least": costs[0],
                "most": costs[-1],
            }
        )
    return rows


if __name__ == "__main__":
    typer.run(main)
