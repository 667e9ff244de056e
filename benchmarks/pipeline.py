"""What pipelining gains: verl's trainer modes and ours, side by side, on the same work and the same
cores.

``python -m benchmarks.pipeline [--quick] [--output DIR]``, from the repository's folder; takes two
idle cores and 16 GB.

SmolLM2-135M-Instruct trains on two workloads (:mod:`benchmarks.workload`) under every mode
(:mod:`benchmarks.modes`); separate pools have a core each, ``sync`` has both. The modes take turns,
repeat after repeat. ``--quick`` compares three modes on the long tail (under 20 minutes); without
it, all modes on both workloads (55 minutes a repeat).

Invariants:
* A step is the time between the ends of two consecutive steps, on the wall clock, whatever the mode
  calls a step.
* Left out are a first batch, during which engines warm up, the first step of each workload (filled,
  or mixed with the one before) and its last, beside which a pipelined mode samples nothing, or the
  next workload.
* What was measured is written after every run; the same command goes on where it was stopped, with
  the same code only.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import pinning, spans
from benchmarks.common import versions, write_report
from benchmarks.modes import MODES, Mode, common
from benchmarks.pipeline_report import WARM_UP, markdown, summarise, write_plot
from benchmarks.workload import TINY_WORKLOADS, WORKLOADS, quickstart_prompts, write_data
from verl_pipeline.machine import describe_machine
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.testing import runs, tiny

ROOT = Path(__file__).parents[1]
# Longest time of one run; one takes 7 minutes here.
RUN_S = 2400.0
QUICK = ("verl sync, 50 ms poll", "ours, staleness 1", "verl one_step_off_policy")


def measure(
    mode: Mode, directory: Path, settings: list[str], progress: Progress, steps: int
) -> dict:
    """One run from start to end.

    Returns:
        ``spans`` (see :mod:`benchmarks.spans`), ``metrics`` by step, and ``start`` (seconds since
        the epoch).

    Raises:
        RuntimeError: it failed or took too long; the end of its log is in the message.
    """
    path = directory / "spans.jsonl"
    environment = {
        spans.PATH: str(path),
        "VERL_USE_EXTERNAL_MODULES": "benchmarks.spans",
        "PYTHONPATH": str(ROOT),
        # A pool of both cores computes with both.
        "OMP_NUM_THREADS": str(2 // mode.pools),
    }
    if mode.poll_s is not None:
        environment[spans.POLL_S] = str(mode.poll_s)
    cores = sorted(os.sched_getaffinity(0))[:2]
    trainer, rollout = (set(cores), set(cores)) if mode.pools == 1 else ({cores[0]}, {cores[1]})
    start = time.time()
    task = progress.add_task(f"  {mode.name}", total=steps)

    def watch(processes: Iterable[psutil.Process]) -> None:
        pinning.pin(processes, trainer, rollout)
        progress.update(
            task, completed=sum(span["name"] == "step ends" for span in spans.read(path))
        )

    try:
        settings = [*settings, *mode.overrides]
        run = runs.train(
            directory, settings, module=mode.module, timeout_s=RUN_S, watch=watch, **environment
        )
    finally:
        progress.remove_task(task)
    if run.returncode != 0 or len(run.metrics) < steps:
        tail = "\n".join(run.output.splitlines()[-25:])
        ended = (
            f"exit code {run.returncode} after {len(run.metrics)} of {steps} steps and "
            f"{time.time() - start:.0f} s"
        )
        raise RuntimeError(f"{mode.name}: {ended} (it may take {RUN_S:g} s); its log ends\n{tail}")
    if run.leftovers:
        progress.console.print(f"{mode.name} left behind (removed now): {', '.join(run.leftovers)}")
    return {"start": start, "spans": spans.read(path), "metrics": run.metrics}


def main(
    quick: Annotated[
        bool, typer.Option(help="Three modes, the long tail only, one repeat.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each mode.")] = 2,
    batches: Annotated[
        int, typer.Option(min=3, help="Batches of each workload in a run; two are not measured.")
    ] = 4,
    only: Annotated[
        list[str] | None, typer.Option(help="Modes to run, by name; may be repeated.")
    ] = None,
    tiny_model: Annotated[
        bool, typer.Option(help="A model of 0.1 M parameters: to try the script.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for results and plot.")] = Path(
        "outputs/pipeline"
    ),
) -> None:
    """Run all modes in turn and report."""
    # Also where the shell has set them to be ignored or to kill: a run has a session of its own and
    # would go on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    names = [mode.name for mode in MODES]
    unknown = set(only or []) - set(names)
    if unknown:
        raise typer.BadParameter(
            f"no mode {', '.join(sorted(unknown))}; there are: {'; '.join(names)}"
        )
    if len(os.sched_getaffinity(0)) < 2:
        raise typer.BadParameter("two pools need two cores; this process may use one")
    modes = [mode for mode in MODES if mode.name in (only or (QUICK if quick else names))]
    workloads = TINY_WORKLOADS if tiny_model else WORKLOADS
    if quick:
        workloads, repeats = workloads[1:], 1
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    data = output / "data.parquet"
    by_batch = [workloads[0]] * WARM_UP + [
        workload for workload in workloads for _ in range(batches)
    ]
    write_data(data, by_batch, ["write a"] if tiny_model else quickstart_prompts())
    model = tiny.write_model(output / "model") if tiny_model else prepare_model()
    settings = common(model, data, workloads, len(by_batch))
    arguments = {"quick": quick, "batches": batches, "tiny_model": tiny_model}
    path = output / "pipeline.json"
    report: dict = {"workloads": [workload.describe() for workload in workloads], "runs": []}
    report["runs"] += measured_before(path, arguments, report["workloads"], console)
    measured = {(run["mode"], run["repeat"]) for run in report["runs"]}
    missing = [
        (n, mode) for n in range(repeats) for mode in modes if (mode.name, n) not in measured
    ]
    with make_progress_bars(console) as progress:
        runs_done = progress.add_task("runs", total=len(missing))
        for repeat, mode in missing:
            directory = output / "runs" / f"{mode.name.replace(' ', '-').replace(',', '')}-{repeat}"
            shutil.rmtree(directory, ignore_errors=True)
            run = measure(mode, directory, settings, progress, len(by_batch))
            report["runs"].append(summarise(mode, repeat, run, workloads, batches))
            write_report(path, "pipeline", arguments, report)
            seconds = ", ".join(f"{step['seconds']:.1f}" for step in report["runs"][-1]["steps"])
            progress.console.print(f"{mode.name}, repeat {repeat + 1}: steps of {seconds} s")
            progress.advance(runs_done)
    (output / "pipeline.md").write_text(markdown(report))
    write_plot(report, output / "pipeline.svg")
    print(markdown(report))
    console.print(
        f"results: {path}; the same as table and plot: pipeline.md, pipeline.svg beside it"
    )


def measured_before(
    path: Path, arguments: dict, workloads: list[dict], console: Console
) -> list[dict]:
    """Runs of an earlier call with the same arguments, workloads, code and machine; other results
    are moved aside.
    """
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    found = (
        before["arguments"],
        before["results"]["workloads"],
        before["machine"],
        before["versions"],
    )
    if found == (arguments, workloads, describe_machine(), versions()):
        return before["results"]["runs"]
    aside = path.with_name(f"pipeline-{before['started'].replace(':', '')}.json")
    path.rename(aside)
    console.print(
        f"the results that were there are of other code, workloads or another machine: now {aside}"
    )
    return []


if __name__ == "__main__":
    typer.run(main)
