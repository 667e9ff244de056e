"""What beginning the trajectories that are likely long first would gain, by the planner.

``python -m benchmarks.longest_first [--output results.json]``, from the repository's folder; some
minutes of one core. A batch is handed out in the order of guessed lengths: all of it, or only the
tenth with the largest guesses before the rest. Guesses are the lengths themselves, or have a set
correlation with their logarithms. A prompt's mean over n earlier samples has
``rho / sqrt(rho + (1 - rho) / n)``, if ``rho`` of the variance is between prompts: 0.6 for 8
samples and 0.43.

Modes have the splits and slots of their fastest rows in ``dispatch_decisions.json``.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import typer

from benchmarks.common import ReportOption, print_table, write_report
from benchmarks.dispatch_decisions import RESULTS as DECISIONS
from benchmarks.dispatch_decisions import WARM_UP, count_steps
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.workload import Workload, draw_workload

RESULTS = Path("benchmarks/results/longest_first.json")
MODES = ["drained:1", "rolling:2", "rolling:4", "in_flight:1", "in_flight:2", "in_flight:4"]
# Correlation of a guess and the logarithm of the length; share of a batch that is put in front.
ORDERS = [(1.0, 1.0), (0.6, 1.0), (1.0, 0.1), (0.6, 0.1)]
SEEDS = 2


@dataclass(frozen=True)
class GuessedWorkload(Workload):
    """Batches with an order.

    Attributes:
        orders: of each batch's trajectories, int64 [batches, trajectories].
    """

    orders: np.ndarray

    def order(self, batch: int, longest_first: bool) -> np.ndarray:
        """See the base."""
        return self.orders[batch] if longest_first else super().order(batch, longest_first)


def guess_order(workload: Workload, correlation: float, share: float, seed: int) -> GuessedWorkload:
    """The workload in the order of guesses."""
    lengths = np.log(workload.responses)
    centred = lengths - lengths.mean()
    noise = np.random.default_rng((seed, 1)).standard_normal(lengths.shape) * lengths.std()
    guesses = correlation * centred + np.sqrt(1 - correlation**2) * noise
    orders = np.argsort(-guesses, axis=1, kind="stable")
    front = round(share * orders.shape[1])
    orders[:, front:].sort(axis=1)
    return GuessedWorkload(workload.responses, workload.prompts, workload.rewards, orders)


def measure(profile: Profile, schedule: Schedule, layout: Layout) -> dict[str, Any]:
    """Seconds of a step in the loader's order, and by how much each other order is faster."""
    steps = count_steps(profile)
    last = steps - schedule.staleness

    def find_step(workload: Workload, layout: Layout) -> float:
        outcome = simulate(
            profile, schedule, layout, steps=steps, warm_up=WARM_UP, workload=workload
        )
        return float(outcome.ends[last - 1] - outcome.ends[WARM_UP - 1]) / (last - WARM_UP)

    plain: list[float] = []
    ordered: dict[tuple[float, float], list[float]] = {order: [] for order in ORDERS}
    for seed in range(SEEDS):
        workload = draw_workload(profile, steps + schedule.staleness, seed)
        plain.append(find_step(workload, layout))
        for order, found in ordered.items():
            guessed = guess_order(workload, *order, seed)
            found.append(find_step(guessed, replace(layout, longest_first=True)))
    gains = {
        f"correlation {correlation:g}, first {share:g} of the batch": fmean(plain) / fmean(found)
        - 1
        for (correlation, share), found in ordered.items()
    }
    return {"step_s": fmean(plain), **gains}


def main(output: ReportOption = RESULTS) -> None:
    """Measure the fastest layout of each mode on every profile of the decisions' results."""
    fastest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in json.loads(DECISIONS.read_text())["results"]:
        key = row["profile"], row["mode"]
        if not row["slow"] and row["mode"] in MODES:
            fastest[key] = min(row, fastest.get(key, row), key=lambda other: other["step_s"])
    results = []
    for (name, mode), row in fastest.items():
        kind, staleness = mode.split(":")
        rollout, trainer = map(int, row["split"].split(":"))
        layout = Layout(rollout, trainer, row["slots"])
        place = {"profile": name, "mode": mode, "split": row["split"], "slots": row["slots"]}
        profile = load_profile(Path(name))
        results.append(place | measure(profile, Schedule(kind, int(staleness)), layout))
        write_report(output, "longest_first", {"seeds": SEEDS, "warm_up": WARM_UP}, results)
    print_table(results, list(results[0]))


if __name__ == "__main__":
    typer.run(main)
