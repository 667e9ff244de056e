"""Measures the driver's own time per step, during which the trainer's devices wait.

``python -m benchmarks.control_plane [--before FOLDER] [--short] [--output results.json]``, from the
repository's folder. ``--before`` measures another checkout of this repository beside this one, by
the same script and in turns. ``--smallest`` and ``--largest`` measure some of the sizes; ``--keep``
leaves the other results in the output as they are. ``--mode rolling`` measures this checkout's
driver past the barrier, at staleness 2: the dispatcher does there what :mod:`benchmarks.dispatch`
measures, and the driver neither drains nor waits for it.

Trajectories are synthetic (lognormal lengths, mean 8K tokens, the longest 32K), TransferQueue is
real, the driver's methods are the trainer's own: GRPO with token-level importance weights, 16
samples a prompt, without reference model and critic. There is no model: what trainer ranks and
agent loops write is written between the phases (see :mod:`benchmarks.control_plane_case`).

Phases: ``submit`` the prompts, ``sample`` the finished batch, ``balance`` (check, filter, order),
``old_log_prob`` (log-probs, entropy, distance to the rollout), ``advantage`` (importance weights,
rejection, advantages), ``metrics``, ``clear``. ``driver`` is their sum; ``driver cpu`` the
processor time in it, which other work on the machine changes less. ``rank`` is what the slowest of
8 trainer ranks computes in the driver's place, on one processor, while the driver waits: ``wait``
is the sum of both, what the trainer's devices wait for.
``poll share`` is the part of the wait for a batch that goes into asking TransferQueue.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import track

from benchmarks.common import ReportOption, print_table, summarize_spread, write_report

ROOT = Path(__file__).parents[1]
CASE_TIMEOUT_S = 1800
MEAN_TOKENS, LONGEST_TOKENS = 8192, 32768
SIZES = (64, 512, 2048, 8192, 16384)
# Beyond, verl's padded tensors do not fit into 24 GiB: 13 GB for 4,096 trajectories.
LARGEST_BEFORE = 2048
# The trajectories of --short: what a test affords.
SHORT_SIZES, SHORT_MEAN, SHORT_LONGEST = (32, 64), 32, 128
PHASES = ("submit", "sample", "balance", "old_log_prob", "advantage", "metrics", "clear")


def run_case(checkout: Path, case: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Run one case with the trainer of ``checkout``, in a process of its own.

    Raises:
        RuntimeError: the case failed; the message has the end of its output.
    """
    output = scratch / "case.json"
    arguments = json.dumps({**case, "output": str(output)})
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/control_plane_case.py"), arguments],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=CASE_TIMEOUT_S,
    )
    if run.returncode != 0:
        raise RuntimeError(f"{checkout}, {case} failed:\n{(run.stdout + run.stderr)[-3000:]}")
    return json.loads(output.read_text())


def identify_case(case: dict[str, Any]) -> tuple[int, str]:
    """Size and mode; reports from before there were modes have only the first."""
    return case["trajectories"], case.get("mode", "drained")


def name_series(result: dict[str, Any]) -> str:
    """The checkout, and the mode if it is not the first."""
    _size, mode = identify_case(result["case"])
    return result["checkout"] if mode == "drained" else f"{result['checkout']}, {mode}"


def compare_metrics(ours: dict[str, float], theirs: dict[str, float]) -> list[str]:
    """Names of metrics that are missing on one side or differ by more than a rounding."""
    different = set(ours) ^ set(theirs)
    for name in set(ours) & set(theirs):
        # A deviation is the root of a difference of float32 sums of about the same size.
        slack = 2e-3 if "std" in name else 2e-5
        if not math.isclose(ours[name], theirs[name], rel_tol=2e-4, abs_tol=slack):
            different.add(name)
    return sorted(different)


def make_row(label: str, result: dict[str, Any]) -> dict[str, Any]:
    """Medians over a case's steps: seconds by phase, megabytes, and what polling costs."""
    steps = result["steps"]

    def find_median(values: list[float]) -> float:
        return summarize_spread(values)["median"]

    moved = [
        sum(size for name, size in step[table].items() if name in PHASES)
        for step in steps
        for table in ("read_bytes", "written_bytes")
    ]
    return {
        "checkout": label,
        "trajectories": result["case"]["trajectories"],
        "Mtokens": find_median([step["tokens"] / 1e6 for step in steps]),
        **{name: find_median([step["seconds"][name] for step in steps]) for name in PHASES},
        "driver": find_median([step["driver_s"] for step in steps]),
        "driver min": min(step["driver_s"] for step in steps),
        "driver max": max(step["driver_s"] for step in steps),
        "driver cpu": find_median([step["driver_cpu_s"] for step in steps]),
        "rank": find_median([max(step["rank_s"]) for step in steps]),
        "wait": find_median([step["driver_s"] + max(step["rank_s"]) for step in steps]),
        "MB moved": sum(moved) / len(steps) / 1e6,
        "peak GB": result["peak_bytes"] / 1e9,
        "poll share": find_median([step["poll_share"] for step in steps]),
    }


def estimate_growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponent of the wait from each size of a checkout to its next: 1 is linear."""
    growth = []
    for smaller, larger in zip(rows, rows[1:], strict=False):
        if smaller["checkout"] == larger["checkout"]:
            sizes = math.log(larger["trajectories"] / smaller["trajectories"])
            growth.append(
                {
                    "checkout": larger["checkout"],
                    "from": smaller["trajectories"],
                    "to": larger["trajectories"],
                    "exponent": math.log(larger["wait"] / smaller["wait"]) / sizes,
                }
            )
    return growth


def main(
    before: Annotated[
        Path | None, typer.Option(help="Another checkout, measured beside this one.")
    ] = None,
    short: Annotated[bool, typer.Option(help="A few short trajectories.")] = False,
    smallest: Annotated[int, typer.Option(help="Smallest number of trajectories.")] = 1,
    largest: Annotated[int, typer.Option(help="Largest number of trajectories.")] = SIZES[-1],
    keep: Annotated[bool, typer.Option(help="Add to the results in the output.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Steps of each case.")] = 3,
    mode: Annotated[
        Literal["drained", "rolling"], typer.Option(help="When replicas take weights.")
    ] = "drained",
    seed: Annotated[int, typer.Option(help="Of the trajectories.")] = 0,
    wait: Annotated[float, typer.Option(help="Seconds in which a batch is polled.")] = 10.0,
    output: ReportOption = Path("outputs/control_plane.json"),
) -> None:
    """Run all cases in turn, print the results, and write the report."""
    all_sizes = SHORT_SIZES if short else SIZES
    sizes = [size for size in all_sizes if smallest <= size <= largest]
    mean, longest = (SHORT_MEAN, SHORT_LONGEST) if short else (MEAN_TOKENS, LONGEST_TOKENS)
    arguments = {"short": short, "repeats": repeats, "seed": seed, "wait": wait}
    results: list[dict[str, Any]] = []
    if keep and output.exists():
        kept = json.loads(output.read_text())["results"]
        measured = {(size, mode) for size in sizes}
        results = [old for old in kept if identify_case(old["case"]) not in measured]
    with tempfile.TemporaryDirectory(prefix="vpcp") as scratch:
        for size in track(sizes, description="control plane"):
            case = {
                "trajectories": size, "mean": mean, "longest": longest,
                "repeats": repeats, "wait_s": wait, "seed": seed, "mode": mode,
            }  # fmt: skip
            pair: dict[str, dict[str, Any]] = {}
            for label, checkout in (("before", before), ("after", ROOT)):
                if checkout is None or (label == "before" and size > LARGEST_BEFORE):
                    continue
                pair[label] = run_case(checkout.resolve(), case, Path(scratch))
                results.append({"checkout": label, "case": case, **pair[label]})
            if len(pair) == 2:
                steps = zip(pair["after"]["steps"], pair["before"]["steps"], strict=True)
                differences = [compare_metrics(a["metrics"], b["metrics"]) for a, b in steps]
                results[-1]["different_metrics"] = sorted(set().union(*differences))
            write_report(output, "control_plane", arguments, results)
    rows = sorted(
        (make_row(name_series(result), result) for result in results),
        key=lambda row: (row["checkout"] != "before", row["checkout"], row["trajectories"]),
    )
    print_table(rows, list(rows[0]))
    if growth := estimate_growth(rows):
        print_table(growth, list(growth[0]))
    different = sorted(set().union(*(result.get("different_metrics", []) for result in results)))
    print(f"metrics that differ: {', '.join(different) or 'none'}")
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
