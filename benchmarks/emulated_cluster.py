"""Runs verl's trainer modes and ours on emulated GPUs, side by side, beside the planner.

``python -m benchmarks.emulated_cluster --profile NAME [--profile ...] [--modes sync,ours:drained]
[--split auto|each|a:b] [--steps 5] [--seeds 1] [--time-scale auto|X] [--output DIR]``, from the
repository's folder; two cores, 8 GB, a minute a run and what its steps take.

``--slow-replica 1:2.5`` makes a replica slow; ``--lengths`` takes the response lengths of a
recorded run, a JSON list or a parquet file (:mod:`benchmarks.emulated_trace`) instead of drawing
them.

Everything but the engines is real: verl's trainer, TransferQueue, agent loops, load balancer,
reward loop, weight sync, our schedule. The engines take the time that a profile of
``verl-pipeline plan`` describes, ``--time-scale`` times faster. What is aggregated: one trainer
rank stands for all of the trainer's GPUs, one server process for all replicas (the load balancer
sees each), one reward worker process for the reward pool, and one token for ``--token-factor``
emulated ones.

Results are written after every run, as JSON with a table and a plot; the same command goes on after
an interruption.
"""

import json
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.common import read_versions, write_report
from benchmarks.emulated_options import (
    check_slow_replicas,
    check_steps,
    choose_layout,
    choose_modes,
    choose_scale,
    choose_token_factor,
    read_slow_replicas,
)
from benchmarks.emulated_plot import write_plot
from benchmarks.emulated_report import make_markdown, make_rows
from benchmarks.emulated_runs import Case, make_layout, run_case
from benchmarks.emulated_trace import read_lengths
from verl_pipeline.emulated.cluster import check_size
from verl_pipeline.emulated.trace import follow_trace
from verl_pipeline.errors import UserError
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.files import write_text
from verl_pipeline.outputs.folders import FolderKind, claim_output
from verl_pipeline.path_options import path_option
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.testing import runs

NAME = "emulated_cluster"
RESULTS = FolderKind(
    f"benchmarks.{NAME}",
    landmarks=(f"{NAME}.json",),
    written=(f"{NAME}.json", f"{NAME}.md", f"{NAME}.svg"),
)
# Of a result: a run with the same ones is not repeated.
KEYS = (
    *("profile", "mode", "layout", "seed", "time_scale", "control_scale", "token_factor"),
    *("slow_replicas", "lengths"),
)
DEFAULT_MODES = "sync,separate_async,ours:drained"


def main(
    profile: Annotated[list[str], typer.Option(help="Profile, by name or file; repeatable.")],
    modes: Annotated[
        str,
        typer.Option(
            help="Trainer modes, with commas between.",
            show_default=DEFAULT_MODES.replace(",", ", "),
        ),
    ] = DEFAULT_MODES,
    split: Annotated[
        str,
        typer.Option(
            help="Rollout and trainer GPUs, as 4:12; auto: the planner's for drained; each: for "
            "each mode, and its slots."
        ),
    ] = "auto",
    slots: Annotated[
        int,
        typer.Option(min=0, max=65_536, help="Of a replica of two pools; 0: as the profile."),
    ] = 0,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Steps of a run.")] = 5,
    warm_up: Annotated[int, typer.Option(min=1, help="First steps that do not count.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Drawn workloads.")] = 1,
    time_scale: Annotated[
        str, typer.Option(help="Emulated seconds in a real one; auto: a step of sync in 6 s.")
    ] = "auto",
    control_scale: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Emulated seconds that a real second of the control plane counts. Here one agent "
            "loop worker and one reward worker do the work of verl's default of 8 each: 0.125.",
        ),
    ] = 1.0,
    token_factor: Annotated[
        int, typer.Option(min=0, max=4096, help="Emulated tokens behind one; 0: chosen.")
    ] = 0,
    slow_replica: Annotated[
        list[str] | None,
        typer.Option(
            help="Number of a replica and how many times slower it decodes, as 1:2.5; repeatable."
        ),
    ] = None,
    lengths: Annotated[
        Path | None,
        path_option(
            "--lengths",
            help="Response lengths, in the order of the data, instead of the profile's: a recorded "
            "run's folder, a JSON list, or a parquet file with response_tokens.",
        ),
    ] = None,
    output: Annotated[Path, path_option(help="Folder for results.")] = Path("outputs/emulated"),
) -> None:
    """Run every mode on every profile."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    try:
        chosen = choose_modes(modes)
        for mode in chosen:
            check_steps(mode, steps, warm_up)
        slow = read_slow_replicas(slow_replica or [])
        cases = []
        for name in profile:
            loaded, recorded = load_profile(Path(name)), None
            if lengths is not None:
                recorded = read_lengths(lengths, loaded.sampling.trajectories)
                loaded = follow_trace(loaded, recorded)
            check_size(loaded)
            planner = Planner(loaded, 1)
            common: dict[str, Any] = {
                "time_scale": choose_scale(planner, time_scale),
                "control_scale": control_scale,
                "token_factor": choose_token_factor(loaded, token_factor),
                "slow_replicas": slow,
                "lengths": "" if lengths is None else str(lengths),
            }
            layouts = [choose_layout(loaded, planner, mode, split, slots) for mode in chosen]
            for seed in range(seeds):
                for mode, layout in zip(chosen, layouts, strict=True):
                    case = Case(name, mode, *layout, seed, steps, warm_up, **common)
                    check_slow_replicas(case, loaded)
                    cases.append((case, loaded, recorded))
        with claim_output(output.resolve(), RESULTS):
            run_cases(cases, output.resolve(), console)
    except UserError as error:
        raise typer.BadParameter(str(error)) from error


def run_cases(
    cases: list[tuple[Case, Profile, np.ndarray | None]], output: Path, console: Console
) -> None:
    """Run what has no result yet, and write results, table and plot."""
    path = output / f"{NAME}.json"
    results = _load_results(path)
    done = [[result[key] for key in KEYS] for result in results]
    runs.warm_up_runs()
    for case, profile, lengths in cases:
        arguments = {"steps": case.steps, "warm_up": case.warm_up}
        if [_read_key(case, profile, name) for name in KEYS] in done:
            continue
        console.print(f"{case.name}: {case.steps} steps, {case.time_scale:.0f} times faster")
        result = run_case(case, profile, output, lengths) | {
            "commit": read_versions().get("commit")
        }
        results.append(result)
        seconds = ", ".join(format_decimal(value, 0) for value in result["step_s"])
        console.print(f"  steps of {seconds} s; {result['real_s']:.0f} s of real time")
        write_report(path, NAME, arguments, results)
    rows = make_rows(results)
    table = make_markdown(rows)
    write_text(output / f"{NAME}.md", table)
    write_plot(rows, output / f"{NAME}.svg")
    print(table)


def _read_key(case: Case, profile: Profile, name: str) -> Any:
    """As a result has it."""
    if name == "mode":
        return case.mode.name
    if name == "layout":
        return asdict(make_layout(case, profile))
    value = getattr(case, name)
    return {str(key): entry for key, entry in value.items()} if name == "slow_replicas" else value


def _load_results(path: Path) -> list[dict[str, Any]]:
    """Results of earlier calls; each names the commit that it is of."""
    if not path.is_file():
        return []
    # Older ones had none of these.
    defaults = {"slow_replicas": {}, "lengths": "", "first_step": 2}
    return [defaults | result for result in json.loads(path.read_text())["results"]]


if __name__ == "__main__":
    typer.run(main)
