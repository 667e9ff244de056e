"""Compares whole steps with telemetry and without, on real engines.

``python -m benchmarks.telemetry_steps FOLDER [FOLDER ...] [--output results.json]``: the folders
are outputs of ``benchmarks.pipeline`` with the modes ``ours, staleness 1`` and ``ours, staleness 1,
without telemetry``, in turns. A run with ``--time-recording`` is not compared: it tells how many
processor seconds of a step recording took.

Invariants:
* The nth run with telemetry is compared with the nth without, which was made next to it.
* Only outputs of the same code, workload and arguments are compared.
"""

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import (
    ReportOption,
    estimate_ratio,
    format_ratio,
    print_table,
    summarize_spread,
    write_report,
)
from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.path_options import path_argument

WITH = "ours, staleness 1"
WITHOUT = f"{WITH}, without telemetry"
MODES = (WITH, WITHOUT)


def main(
    folders: Annotated[list[Path], path_argument(help="Outputs of benchmarks.pipeline.")],
    output: ReportOption = Path("outputs/telemetry_steps.json"),
) -> None:
    """Compare, print, and write the report."""
    results = compare_runs([read_output(folder) for folder in folders])
    write_report(output, "telemetry_steps", {"folders": list(map(str, folders))}, results)
    print_table(results["runs"], ["mode", "median", "min", "max", "n"])
    print(f"step with telemetry over step without: {format_ratio(results['ratio'], 3)}")
    if (recording := results["recording"]) is not None:
        cpu, step_s = sum(recording["cpu"].values()), recording["step_s"]
        awaited = sum(recording["wall"].values())
        print(
            f"recording takes {format_decimal(1e3 * cpu)} ms of processor time a step of "
            f"{format_decimal(step_s)} s, {format_percent(cpu / step_s, 2)}; the trainer waits "
            f"for {format_decimal(1e3 * awaited)} ms, {format_percent(awaited / step_s, 2)}"
        )


def read_output(folder: Path) -> dict[str, Any]:
    """Read what a call of ``benchmarks.pipeline`` wrote.

    Raises:
        typer.BadParameter: there is none, or it is unfinished.
    """
    path = folder / "pipeline.json"
    if not path.is_file():
        raise typer.BadParameter(f"{path}: no such file; give an output of benchmarks.pipeline")
    return json.loads(path.read_text())


def compare_runs(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return ``runs`` (spread of each, in seconds), their ``ratio``, and ``recording``.

    Raises:
        typer.BadParameter: there are not as many runs with telemetry as without, or they differ in
            more than that.
    """
    timed = [report for report in reports if report["arguments"].get("time_recording")]
    plain = [report for report in reports if report not in timed]
    for report in plain[1:]:
        for name, one, other in (
            ("arguments", report["arguments"], plain[0]["arguments"]),
            ("versions", report["versions"], plain[0]["versions"]),
            ("workloads", report["results"]["workloads"], plain[0]["results"]["workloads"]),
        ):
            if one != other:
                raise typer.BadParameter(f"the outputs have other {name}; measure all alike")
    runs = [run for report in plain for run in report["results"]["runs"]]
    seconds = {mode: [_list_seconds(run) for run in runs if run["mode"] == mode] for mode in MODES}
    counts = {mode: len(found) for mode, found in seconds.items()}
    if not counts[WITH] or counts[WITH] != counts[WITHOUT]:
        raise typer.BadParameter(
            f"{counts[WITH]} runs with telemetry and {counts[WITHOUT]} without; give as many of "
            "each, and one at least"
        )
    medians = {mode: [statistics.median(run) for run in seconds[mode]] for mode in MODES}
    recording = None
    for run in (run for report in timed for run in report["results"]["runs"]):
        if run["mode"] == WITH:
            recording = {**run["recording"], "step_s": statistics.median(_list_seconds(run))}
    return {
        "runs": [
            {"mode": mode, **summarize_spread(run), "step_s": run}
            for pair in zip(*(seconds[mode] for mode in MODES), strict=True)
            for mode, run in zip(MODES, pair, strict=True)
        ],
        "ratio": dict(estimate_ratio(medians[WITH], medians[WITHOUT], paired=True)),
        "recording": recording,
    }


def _list_seconds(run: dict[str, Any]) -> list[float]:
    return [step["seconds"] for step in run["steps"]]


if __name__ == "__main__":
    typer.run(main)
