"""Compares what the planner predicts from a recorded run of verl's `sync` with a run of ours.

``python -m benchmarks.planner_run SYNC_RUN OUR_RUN [--output results.json]``: the two folders are
those of runs on the same work and as many devices, as :mod:`benchmarks.pipeline` leaves them
(modes ``verl sync, two ranks`` and ``ours, staleness 1``). ``--scaling-run``, of any mode, is that
of ``verl-pipeline plan``.

Invariant: nothing of our run but its split and staleness is told to the planner.
"""

import statistics
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.errors import UserError
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.path_options import path_argument, path_option
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planning.run_profile import make_run_estimate
from verl_pipeline.telemetry.accounting import list_steady_steps
from verl_pipeline.telemetry.run_folder import load_run

SEEDS = 5


def main(
    sync_run: Annotated[Path, path_argument(help="Folder of a run of verl's sync.")],
    our_run: Annotated[Path, path_argument(help="Folder of a run of one_off_pipeline.")],
    scaling_run: Annotated[
        list[Path] | None,
        path_option("--scaling-run", help="A run on another number of training devices."),
    ] = None,
    output: ReportOption = Path("outputs/planner_run.json"),
) -> None:
    """Predict, compare, print, and write the report."""
    scaling_runs = scaling_run or []
    try:
        estimate = make_run_estimate(sync_run, scaling_runs)
        ours = load_run(our_run)
    except UserError as error:
        raise typer.BadParameter(str(error)) from error
    profile = estimate.profile
    header, reproduction = ours.header, estimate.reproduction
    if header.staleness is None or reproduction is None:
        raise typer.BadParameter(f"{our_run} is no run of one_off_pipeline, but of {header.mode}")
    planner = Planner(profile, SEEDS)
    layout = Layout(header.rollout_devices, header.trainer_devices, profile.sampling.slots)
    schedule = Schedule("drained", header.staleness)
    predicted_s = statistics.fmean(
        planner.run(schedule, layout, seed).step_s for seed in range(SEEDS)
    )
    measured_s = statistics.fmean(part.step_s for part in list_steady_steps(ours))
    rows = [
        {
            "run": name,
            "measured s": measured,
            "predicted s": predicted,
            "error, %": 100 * (predicted / measured - 1),
        }
        for name, measured, predicted in (
            ("sync", reproduction.measured_s, reproduction.simulated_s),
            (f"one_off_pipeline, staleness {header.staleness}", measured_s, predicted_s),
        )
        if predicted is not None
    ]
    gains = {
        "measured": reproduction.measured_s / measured_s,
        "predicted": planner.sync.step_s / predicted_s,
    }
    arguments = {
        "sync_run": str(sync_run),
        "our_run": str(our_run),
        "scaling_runs": [str(path) for path in scaling_runs],
        "seeds": SEEDS,
    }
    scaling = profile.training.scaling
    results = {"rows": rows, "gains": gains, "scaling": scaling, "notes": estimate.notes}
    write_report(output, "planner_run", arguments, results)
    print_table(rows, ["run", "measured s", "predicted s", "error, %"])
    shown = {name: format_decimal(gain, 2) for name, gain in gains.items()}
    typer.echo(f"gain: measured {shown['measured']}, predicted {shown['predicted']}")
    for note in estimate.notes:
        typer.echo(f"* {note}")


if __name__ == "__main__":
    typer.run(main)
