"""Measures the dispatcher of a run past the barrier: speed, memory, processors.

``python -m benchmarks.dispatch [--before FOLDER] [--short] [--output results.json]``, from the
repository's folder. ``--before`` measures another checkout of this repository beside this one.

The dispatcher, its book and the agent loops' client are the real ones, in Ray processes of this
machine: 8 agent loop workers, 64 replicas that only sleep (see :mod:`benchmarks.dispatch_case`).

* ``latency``: 1,024 trajectories run, thousands wait, lengths are lognormal. From the end of a
  trajectory (its client leaves its place) to the next request at the same replica: three calls
  between processes.
* ``step``: 16,384 trajectories through 64 replicas of 64 slots that take no time.
* ``intake``: four batches of 16,384 that come one after the other, of which no trajectory ends.
* ``book``: the book alone, in microseconds for each event, while 65,536 trajectories wait.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from benchmarks.common import ReportOption, print_table, summarize_spread, write_report

ROOT = Path(__file__).parents[1]
CASE_TIMEOUT_S = 1800
SIZES = {
    "replicas": 64, "slots": 64, "running": 1024, "clients": 8, "trajectories": 16384,
    "batches": 4, "mean_s": 10.0, "latency_s": 20.0,
}  # fmt: skip
# What a test affords.
SHORT = {
    "replicas": 4, "slots": 8, "running": 16, "clients": 2, "trajectories": 400,
    "batches": 2, "mean_s": 0.5, "latency_s": 2.0,
}  # fmt: skip


def run_case(checkout: Path, case: dict[str, Any]) -> dict[str, list[Any]]:
    """Run one case with the dispatcher of ``checkout``, in a process of its own.

    Returns:
        By measurement, what each repeat saw (:mod:`benchmarks.dispatch_case`).

    Raises:
        RuntimeError: the case failed; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="vpdi") as scratch:
        output = Path(scratch) / "case.json"
        run = subprocess.run(
            [
                sys.executable,
                str(ROOT / "benchmarks/dispatch_case.py"),
                json.dumps({**case, "output": str(output)}),
            ],
            env=os.environ | {"PYTHONPATH": str(checkout)},
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=CASE_TIMEOUT_S,
        )
        if run.returncode != 0:
            raise RuntimeError(f"{checkout}, {case} failed:\n{(run.stdout + run.stderr)[-3000:]}")
        return json.loads(output.read_text())


def list_figures(measured: dict[str, list[Any]]) -> dict[str, list[float]]:
    """By name, a figure's value in each repeat; those of the intake by batch."""
    figures: dict[str, list[float]] = {}
    for name, repeats in measured.items():
        for seen in repeats:
            for row in seen if isinstance(seen, list) else [seen]:
                part = f"{name} {row['batch']}" if "batch" in row else name
                for figure, value in row.items():
                    if figure != "batch":
                        figures.setdefault(f"{part}: {figure}", []).append(value)
    return figures


def make_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each figure, with each checkout's median and range."""
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        for name, values in list_figures(result["measured"]).items():
            spread = summarize_spread(values)
            row = rows.setdefault(name, {"figure": name})
            row[result["checkout"]] = spread["median"]
            row[f"{result['checkout']} range"] = f"{spread['min']:.4g} to {spread['max']:.4g}"
    return list(rows.values())


def main(
    before: Annotated[
        Path | None, typer.Option(help="Another checkout, measured beside this one.")
    ] = None,
    short: Annotated[bool, typer.Option(help="A few trajectories.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each checkout.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the lengths.")] = 0,
    output: ReportOption = Path("outputs/dispatch.json"),
) -> None:
    """Measure, print the results, and write the report."""
    case = {**(SHORT if short else SIZES), "repeats": repeats, "seed": seed}
    checkouts = {"after": ROOT} if before is None else {"before": before.resolve(), "after": ROOT}
    results = [
        {"checkout": label, "case": case, "measured": run_case(checkout, case)}
        for label, checkout in track(checkouts.items(), description="dispatch")
    ]
    rows = make_rows(results)
    print_table(rows, list(rows[0]))
    write_report(output, "dispatch", {"short": short, "repeats": repeats, "seed": seed}, results)
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
