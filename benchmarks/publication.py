"""Measures how fast weights are published into host memory and loaded from it, beside a plain copy
of as many bytes in the same run.

``python -m benchmarks.publication [--quick] [--output results.json]``, from the repository's
folder.

One trainer rank, one rollout replica and real engines on CPUs; the cases vary the model's size as
:mod:`benchmarks.weight_sync` does, ``--quick`` measures SmolLM2-135M. The first publications touch
new memory, one for each version that is kept; they are listed apart.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.common import ReportOption, print_table, summarize_spread, write_report
from benchmarks.publication_case import VERSIONS
from benchmarks.quiet_machine import wait_until_quiet
from benchmarks.weight_sync import CASE_TIMEOUT_S, MODELS, ROOT

# --quick measures the first one only.
CASES = ("135M", "360M")


def run_case(model: str, repeats: int, scratch: Path) -> dict:
    """Run one case in a process of its own.

    Raises:
        RuntimeError: the case failed; the message has the end of its output.
    """
    bucket_mb, make_folder = MODELS[model]
    output = scratch / f"{model}.json"
    case = {
        "model": str(make_folder(scratch / model)),
        "repeats": repeats,
        "bucket_mb": bucket_mb,
        "output": str(output),
    }
    command = [sys.executable, "-m", "benchmarks.publication_case", json.dumps(case)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S)
    if run.returncode != 0:
        raise RuntimeError(f"{model} failed:\n{(run.stdout + run.stderr)[-3000:]}")
    return {"model": model, **json.loads(output.read_text())}


def make_table_row(result: dict) -> dict:
    """Return the medians over the versions in touched memory, in seconds and MB/s (1e6 bytes)."""
    megabytes = result["bytes"] / 1e6
    new, kept = result["versions"][:VERSIONS], result["versions"][VERSIONS:]
    publish = summarize_spread([version["publish"] for version in kept])
    load = summarize_spread([version["load"] for version in kept])
    copy_s = statistics.median(result["copy_s"])
    return {
        "model": result["model"],
        "MB": megabytes,
        "publish": publish["median"],
        "min": publish["min"],
        "max": publish["max"],
        "in new memory": statistics.median(version["publish"] for version in new),
        "load": load["median"],
        "load min": load["min"],
        "load max": load["max"],
        "publish MB/s": megabytes / publish["median"],
        "load MB/s": megabytes / load["median"],
        "plain copy MB/s": megabytes / copy_s,
    }


def main(
    quick: Annotated[bool, typer.Option(help="SmolLM2-135M only.")] = False,
    repeats: Annotated[
        int, typer.Option(min=VERSIONS + 1, help="Versions published in each case.")
    ] = 9,
    output: ReportOption = Path("outputs/publication.json"),
) -> None:
    """Run all cases in turn, print the results, and write the report."""
    results = []
    with tempfile.TemporaryDirectory(prefix="vppb") as scratch:
        for model in track(CASES[: 1 if quick else None], description="publication"):
            wait_until_quiet()
            results.append(run_case(model, repeats, Path(scratch)))
            write_report(output, "publication", {"quick": quick, "repeats": repeats}, results)
    rows = [make_table_row(result) for result in results]
    print_table(rows, list(rows[0]))
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
