"""Maps the predicted gain over the share of sampling and the weight of the tail.

``python -m benchmarks.planner_map [--output results.json]``, from the repository's folder; a minute
of one core.

One made-up cluster: 16 GPUs, 512 trajectories a batch, lengths of mean 8K and capped at 32K, 12 ms
and 0.3 ms for each running sequence a decoding step, rewards that take no time, 10 s to switch and
5 to send weights. The update is set so that sampling takes the given share of a step of `sync`.
Each cell is the best split, on one drawn workload.
"""

from pathlib import Path
from typing import Any

import typer

from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.number_formats import format_percent
from verl_pipeline.planner.gain_map import set_sampling_share
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import make_profile
from verl_pipeline.planner.schedules import Schedule
from verl_pipeline.planner.splits import list_splits

RESULTS = Path("benchmarks/results/planner_map.json")
SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
SIGMAS = (0.1, 0.4, 0.7, 1.0)
SCALINGS = (1.0, 0.6)
SCHEDULES = (Schedule("drained", 1), Schedule("rolling", 2), Schedule("in_flight", 2))
GPUS, SLOTS = 16, 256


def make_cell(share: float, sigma: float, scaling: float) -> Profile:
    """The cluster with lengths of ``sigma``, whose sampling takes ``share`` of a step of `sync`."""
    profile = make_profile(
        {
            "name": "map",
            "gpus": GPUS,
            "gpus_per_node": GPUS,
            "sampling": {
                "prompts": 64,
                "samples": 8,
                "response_tokens": {
                    "kind": "lognormal",
                    "mean": 8192,
                    "sigma": sigma,
                    "cap": 32768,
                },
                "prompt_tokens": 500,
                "slots": SLOTS,
                "decode_base_s": 0.012,
                "decode_per_sequence_s": 0.0003,
                "prefill_tokens_per_s": 50_000,
            },
            "training": {"gpus": GPUS, "update_s": 1.0, "scaling": scaling},
            "weights": {"publish_s": 3, "load_s": 2, "switch_s": 10},
            "reward": {"seconds": 0, "workers": 64},
        }
    )
    return set_sampling_share(profile, share)


def predict_cell(share: float, sigma: float, scaling: float) -> dict[str, Any]:
    """The gain of each schedule at its best split."""
    profile = make_cell(share, sigma, scaling)
    planner = Planner(profile, seeds=1)
    cell: dict[str, Any] = {"sampling_share": share, "sigma": sigma, "scaling": scaling}
    for schedule in SCHEDULES:
        plan = planner.find_best_plan(schedule, list_splits(profile))
        cell[str(schedule)] = {
            "gain": plan.gain,
            "split": f"{plan.layout.rollout_gpus}:{plan.layout.trainer_gpus}",
        }
    return cell


def main(output: ReportOption = RESULTS) -> None:
    """Predict every cell and print a map for each schedule and scaling."""
    cells = [
        predict_cell(share, sigma, scaling)
        for scaling in SCALINGS
        for sigma in SIGMAS
        for share in SHARES
    ]
    write_report(output, "planner_map", {}, cells)
    for scaling in SCALINGS:
        for schedule in SCHEDULES:
            typer.echo(f"{schedule}, training speed grows with GPUs to the power {scaling}")
            rows = [
                {"sigma": f"{sigma}"}
                | {
                    format_percent(share, 0): cell[str(schedule)]["gain"]
                    for share in SHARES
                    for cell in cells
                    if (cell["sampling_share"], cell["sigma"], cell["scaling"])
                    == (share, sigma, scaling)
                }
                for sigma in SIGMAS
            ]
            print_table(rows, ["sigma", *(format_percent(share, 0) for share in SHARES)])


if __name__ == "__main__":
    typer.run(main)
