"""What pipelining gains: verl's trainer modes and ours, side by side, on the same work and the same cores.

``python -m benchmarks.pipeline [--quick] [--output DIR]``, from the repository's folder; takes two idle cores and
16 GB.

SmolLM2-135M-Instruct trains on two workloads (:mod:`benchmarks.workload`) under every mode (:mod:`benchmarks.modes`);
separate pools have a core each, ``sync`` has both. The modes take turns, repeat after repeat. ``--quick`` compares
three modes on the long tail (under 20 minutes); without it, all modes on both workloads.

Invariants:
* A step is the time between the ends of two consecutive steps, on the wall clock, whatever the mode calls a step.
* Left out are the first step of a workload (it is filled, or mixed with the one before) and its last, beside which a
  pipelined mode samples nothing, or the next workload.
* What was measured is written after every run; the same command goes on where it was stopped.
"""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import pinning, spans
from benchmarks.common import machine, versions, write_report
from benchmarks.modes import MODES, Mode, common
from benchmarks.pipeline_report import print_tables, summarise, write_plot
from benchmarks.workload import (
    TINY_WORKLOADS,
    WORKLOADS,
    Workload,
    quickstart_prompts,
    write_agent_loop_config,
    write_data,
)
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.testing import runs, tiny

ROOT = Path(__file__).parents[1]
# Longest time of one run; one takes 7 minutes here.
RUN_S = 2400.0
QUICK = ("verl sync, 50 ms poll", "ours, staleness 1", "verl one_step_off_policy")


def measure(mode: Mode, directory: Path, settings: list[str], progress: Progress, steps: int) -> dict:
    """One run from start to end.

    Returns:
        ``spans`` (see :mod:`benchmarks.spans`), ``metrics`` by step, and ``start`` (seconds since the epoch).

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
    cores = sorted(psutil.Process().cpu_affinity() or [])[:2]
    trainer, rollout = (set(cores), set(cores)) if mode.pools == 1 else ({cores[0]}, {cores[1]})
    start = time.time()
    process = runs.start(directory, [*settings, *mode.overrides], module=mode.module, **environment)
    task = progress.add_task(f"  {mode.name}", total=steps)
    seen: dict[int, psutil.Process] = {}
    try:
        while process.poll() is None and time.time() - start < RUN_S:
            seen.update({child.pid: child for child in runs.descendants(process.pid)})
            pinning.pin(seen.values(), trainer, rollout)
            progress.update(task, completed=sum(span["name"] == "step ends" for span in spans.read(path)))
            time.sleep(2.0)
    finally:
        run = runs.collect(directory, process, list(seen.values()))
        progress.remove_task(task)
    if run.returncode != 0 or len(run.metrics) < steps:
        tail = "\n".join(run.output.splitlines()[-25:])
        raise RuntimeError(
            f"{mode.name}: exit code {run.returncode} after {len(run.metrics)} steps; its log ends\n{tail}"
        )
    return {"start": start, "spans": spans.read(path), "metrics": run.metrics}


def main(
    quick: Annotated[bool, typer.Option(help="Three modes, the long tail only, one repeat.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each mode.")] = 2,
    batches: Annotated[int, typer.Option(min=3, help="Batches of each workload in a run.")] = 4,
    only: Annotated[list[str] | None, typer.Option(help="Modes to run, by name; may be repeated.")] = None,
    tiny_model: Annotated[bool, typer.Option(help="A model of 0.1 M parameters: to try the script.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for results, table and plot.")] = Path("outputs/pipeline"),
) -> None:
    """Run all modes in turn and report."""
    console = Console()
    workloads = TINY_WORKLOADS if tiny_model else WORKLOADS
    modes = [mode for mode in MODES if mode.name in (only or (QUICK if quick else [mode.name for mode in MODES]))]
    unknown = set(only or []) - {mode.name for mode in MODES}
    if unknown or not modes:
        raise typer.BadParameter(f"no mode {', '.join(sorted(unknown))}; there are: {', '.join(m.name for m in MODES)}")
    if quick:
        workloads, repeats = workloads[1:], 1
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    data, loops = output / "data.parquet", output / "agent_loops.yaml"
    write_data(data, workloads, batches, ["write a"] if tiny_model else quickstart_prompts())
    write_agent_loop_config(loops)
    model = tiny.write_model(output / "model") if tiny_model else prepare_model()
    steps = batches * len(workloads)
    settings = common(model, data, loops, workloads, steps)
    arguments = {"quick": quick, "repeats": repeats, "batches": batches, "tiny_model": tiny_model}
    report = {"workloads": [_describe(workload) for workload in workloads], "runs": []}
    results = report["runs"] = _measured_before(output / "pipeline.json", report["workloads"], batches)
    measured = {(run["mode"], run["repeat"]) for run in results}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        missing = [(n, mode) for n in range(repeats) for mode in modes if (mode.name, n) not in measured]
        runs_done = progress.add_task("runs", total=len(missing))
        for repeat, mode in missing:
            directory = output / "runs" / f"{mode.name.replace(' ', '-').replace(',', '')}-{repeat}"
            shutil.rmtree(directory, ignore_errors=True)
            run = measure(mode, directory, settings, progress, steps)
            summary = summarise(mode, repeat, run, workloads, batches)
            results.append({**summary, "commit": versions().get("commit")})
            write_report(output / "pipeline.json", "pipeline", arguments, report)
            seconds = ", ".join(f"{step['seconds']:.1f}" for step in results[-1]["steps"])
            progress.console.print(f"{mode.name}, repeat {repeat + 1}: steps of {seconds} s")
            progress.advance(runs_done)
    print_tables(report)
    write_plot(report, output / "pipeline.svg")
    console.print(f"results: {output / 'pipeline.json'}, plot: {output / 'pipeline.svg'}")


def _describe(workload: Workload) -> dict:
    return {**asdict(workload), "lengths": [list(lengths) for lengths in workload.lengths], "tokens": workload.tokens}


def _measured_before(path: Path, workloads: list[dict], batches: int) -> list[dict]:
    """Runs of an earlier call on this machine with the same workloads; none if anything of that differs."""
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    same = before["results"]["workloads"] == workloads and before["arguments"]["batches"] == batches
    return before["results"]["runs"] if same and before["machine"] == machine() else []


if __name__ == "__main__":
    typer.run(main)
