"""Compares verl's trainer modes with ours on the same work and the same cores.

``python -m benchmarks.pipeline [--quick] [--output DIR]``, from the repository's folder; needs two
idle cores and 16 GB.

SmolLM2-135M-Instruct trains on two workloads (:mod:`benchmarks.workload`) in every mode
(:mod:`benchmarks.modes`); separate pools have one core each, ``sync`` has both. The modes take
turns, repeat after repeat. ``--quick`` compares three modes on the long tail (under 20 minutes);
without it, all modes run on both workloads (55 minutes per repeat).

Invariants:
* A step's time is the wall-clock time between the ends of two consecutive steps, in every mode.
* Not measured are: the first batch, during which engines warm up; the first step of each workload,
  which fills the pipeline or overlaps the previous workload; and its last step, beside which a
  pipelined mode samples nothing, or the next workload.
* Results are written after every run. If interrupted, rerun the same command to resume; results of
  other code are not continued.
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

from benchmarks import pinning, recording_time, spans
from benchmarks.common import read_versions
from benchmarks.common import write_report as write_results
from benchmarks.modes import MODES, TrainerMode, make_common_overrides
from benchmarks.pipeline_plot import write_plot
from benchmarks.pipeline_report import make_markdown
from benchmarks.pipeline_steps import WARM_UP_BATCHES, summarize_run
from benchmarks.quiet_machine import wait_until_quiet
from benchmarks.workload import (
    HEAVY_TAIL,
    TINY_HEAVY_TAIL,
    TINY_WORKLOADS,
    WORKLOADS,
    Workload,
    load_quickstart_prompts,
    write_data,
)
from verl_pipeline.machine import describe_machine
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.outputs.files import write_text
from verl_pipeline.outputs.folders import FolderKind, claim_output
from verl_pipeline.path_options import path_option
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.report.report_files import write_report
from verl_pipeline.report.terminal import print_views
from verl_pipeline.testing import runs, tiny_run

ROOT = Path(__file__).parents[1]
RESULTS = FolderKind(
    "benchmarks.pipeline",
    landmarks=("pipeline.json",),
    written=("pipeline.json", "pipeline.md", "pipeline.svg", "report.html", "data.parquet"),
)
# Timeout of one run, which takes 7 minutes on the machine of the published results.
RUN_TIMEOUT_S = 2400.0
RUN_FOLDER = "run"
QUICK_MODES = ("verl sync, 50 ms poll", "ours, staleness 1", "verl one_step_off_policy")


def run_mode(
    mode: TrainerMode,
    directory: Path,
    settings: list[str],
    progress: Progress,
    steps: int,
    modules: Iterable[str] = (spans.__name__,),
) -> dict:
    """Run one training from start to end.

    Args:
        modules: that the run's processes import.

    Returns:
        ``spans`` (see :mod:`benchmarks.spans`), ``metrics`` by step, and ``start`` (seconds since
        the epoch).

    Raises:
        RuntimeError: the run failed or took too long; the message has the end of its log.
    """
    path = directory / "spans.jsonl"
    environment = {
        spans.SPANS_VARIABLE: str(path),
        "VERL_USE_EXTERNAL_MODULES": ",".join(modules),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(mode.threads),
    }
    if mode.poll_s is not None:
        environment[spans.POLL_VARIABLE] = str(mode.poll_s)
    cores = sorted(os.sched_getaffinity(0))[:2]
    trainer_cores, rollout_cores = (
        (set(cores), set(cores)) if mode.pools == 1 else ({cores[0]}, {cores[1]})
    )
    start = time.time()
    task = progress.add_task(f"  {mode.name}", total=steps)

    def watch_processes(processes: Iterable[psutil.Process]) -> None:
        pinning.pin_workers(processes, trainer_cores, rollout_cores)
        progress.update(
            task, completed=sum(span["name"] == "step ends" for span in spans.read_spans(path))
        )

    try:
        settings = [
            *settings,
            *mode.overrides,
            f"trainer.default_local_dir={directory / RUN_FOLDER}",
            f"trainer.experiment_name='{mode.name}'",
        ]
        run = runs.run_training(
            directory,
            settings,
            module=mode.module,
            timeout_s=RUN_TIMEOUT_S,
            watch=watch_processes,
            **environment,
        )
    finally:
        progress.remove_task(task)
    if run.returncode != 0 or len(run.metrics) < steps:
        tail = "\n".join(run.output.splitlines()[-25:])
        raise RuntimeError(
            f"{mode.name}: exit code {run.returncode} after {len(run.metrics)} of {steps} steps "
            f"and {time.time() - start:.0f} s (timeout: {RUN_TIMEOUT_S:g} s); the end of its log:\n"
            f"{tail}"
        )
    if run.leftovers:
        progress.console.print(f"removed leftovers of {mode.name}: {', '.join(run.leftovers)}")
    return {"start": start, "spans": spans.read_spans(path), "metrics": run.metrics}


def main(
    quick: Annotated[
        bool, typer.Option(help="Three modes, the long tail only, one repeat.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each mode.")] = 2,
    batches: Annotated[
        int, typer.Option(min=3, help="Batches of each workload per run; two are not measured.")
    ] = 4,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a mode to run; may be repeated.")
    ] = None,
    heavy_tail: Annotated[
        bool, typer.Option(help="The workload whose longest response takes longer than an update.")
    ] = False,
    tiny_model: Annotated[
        bool, typer.Option(help="A model of 0.1 M parameters, to try the script.")
    ] = False,
    time_recording: Annotated[
        bool,
        typer.Option("--time-recording", help="Also time what the runs' own records take."),
    ] = False,
    output: Annotated[Path, path_option(help="Folder for results and plot.")] = Path(
        "outputs/pipeline"
    ),
) -> None:
    """Run all modes in turn and report."""
    # Raise KeyboardInterrupt in any case, even if the shell has set these signals to be ignored: a
    # run is in a session of its own and would otherwise go on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    names = [mode.name for mode in MODES]
    unknown = set(only or []) - set(names)
    if unknown:
        raise typer.BadParameter(
            f"no mode {', '.join(sorted(unknown))}; name one of: {'; '.join(names)}"
        )
    if len(os.sched_getaffinity(0)) < 2:
        raise typer.BadParameter("two pools need two cores, but this process may use only one")
    modes = [mode for mode in MODES if mode.name in (only or (QUICK_MODES if quick else names))]
    workloads = tuple(TINY_WORKLOADS if tiny_model else WORKLOADS)
    if quick:
        workloads, repeats = workloads[1:], 1
    if heavy_tail:
        workloads = (TINY_HEAVY_TAIL if tiny_model else HEAVY_TAIL,)
    try:
        with claim_output(output.resolve(), RESULTS):
            measure_modes(
                *(output.resolve(), modes, workloads, batches, repeats),
                *(quick, tiny_model, time_recording, console),
            )
    except OutputError as error:
        raise typer.BadParameter(str(error)) from error


def measure_modes(
    output: Path,
    modes: list[TrainerMode],
    workloads: tuple[Workload, ...],
    batches: int,
    repeats: int,
    quick: bool,
    tiny_model: bool,
    time_recording: bool,
    console: Console,
) -> None:
    """Run what has not been measured yet, and write results, table and plot into ``output``."""
    data = output / "data.parquet"
    batch_workloads = [workloads[0]] * WARM_UP_BATCHES + [
        workload for workload in workloads for _ in range(batches)
    ]
    write_data(data, batch_workloads, ["write a"] if tiny_model else load_quickstart_prompts())
    model = tiny_run.write_model(output / "model") if tiny_model else prepare_model()
    settings = make_common_overrides(model, data, workloads, len(batch_workloads))
    arguments = {"quick": quick, "batches": batches, "tiny_model": tiny_model}
    modules = [spans.__name__]
    if time_recording:
        arguments["time_recording"] = True
        modules.append(recording_time.__name__)
    path = output / "pipeline.json"
    report: dict = {"workloads": [workload.as_dict() for workload in workloads], "runs": []}
    report["runs"] += load_previous_runs(path, arguments, report["workloads"], console)
    measured = {(run["mode"], run["repeat"]) for run in report["runs"]}
    missing = [
        (n, mode) for n in range(repeats) for mode in modes if (mode.name, n) not in measured
    ]
    with make_progress_bars(console) as progress:
        runs_done = progress.add_task("runs", total=len(missing))
        for repeat, mode in missing:
            directory = name_run(output, mode, repeat)
            shutil.rmtree(directory, ignore_errors=True)
            wait_until_quiet()
            run = run_mode(mode, directory, settings, progress, len(batch_workloads), modules)
            summary = summarize_run(mode, repeat, run, workloads, batches)
            if time_recording:
                summary["recording"] = recording_time.sum_recording(run["spans"])
            report["runs"].append(summary)
            write_results(path, "pipeline", arguments, report)
            seconds = ", ".join(
                format_decimal(step["seconds"]) for step in report["runs"][-1]["steps"]
            )
            progress.console.print(f"{mode.name}, repeat {repeat + 1}: steps of {seconds} s")
            progress.advance(runs_done)
    write_text(output / "pipeline.md", make_markdown(report))
    write_plot(report, output / "pipeline.svg")
    print(make_markdown(report))
    written = "pipeline.md, pipeline.svg"
    if folders := [name_run(output, mode, 0) / RUN_FOLDER for mode in modes if mode.is_recorded]:
        print_views(console, write_report(folders, output / "report.html").views)
        written += ", and report.html, where every second of the first repeat went"
    console.print(f"results: {path}; in the same folder: {written}")


def name_run(output: Path, mode: TrainerMode, repeat: int) -> Path:
    """Return the folder of a run."""
    return output / "runs" / f"{mode.name.replace(' ', '-').replace(',', '')}-{repeat}"


def load_previous_runs(
    path: Path, arguments: dict, workloads: list[dict], console: Console
) -> list[dict]:
    """Return the runs of an earlier call with the same arguments, workloads, code and machine.

    Other results are moved to another file.
    """
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    conditions = (
        before["arguments"],
        before["results"]["workloads"],
        before["machine"],
        before["versions"],
    )
    if conditions == (arguments, workloads, describe_machine(), read_versions()):
        return before["results"]["runs"]
    moved = path.with_name(f"pipeline-{before['started'].replace(':', '')}.json")
    path.rename(moved)
    console.print(
        f"earlier results are of other code, arguments, workloads or machine: moved to {moved}"
    )
    return []


if __name__ == "__main__":
    typer.run(main)
