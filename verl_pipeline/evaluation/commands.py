"""The commands ``eval``, ``eval-compare`` and ``eval-watch``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline.evaluation.results import EXIT_INCOMPLETE
from verl_pipeline.evaluation.score_tables import (
    print_checkpoints,
    print_comparison,
    print_line,
    print_scores,
)
from verl_pipeline.path_options import path_argument, path_option
from verl_pipeline.processes import handle_end_signals, raise_on_signals

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Further settings, e.g. engine.kind=server; all: docs/evaluation/settings.md"
    ),
]


def run_eval(
    settings: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub name; canonical; empty; or a JSONL file of answers."),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Task names, comma-separated.")] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="Samples per problem; default: the task's.")
    ] = None,
    output: Annotated[
        Path | None, path_option(help="Folder for samples, results and report.")
    ] = None,
    data: Annotated[Path | None, path_option(help="Folder of local data files.")] = None,
    config: Annotated[Path | None, path_option(help="YAML file with any of the settings.")] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="List the tasks and exit.")] = False,
) -> None:
    """Evaluate a model; if interrupted, rerun the same command to resume.

    Exit code 2: wrong settings, data or folder; 3: samples are missing or ungraded.
    """
    console = _make_console()
    if list_tasks:
        console.print(_make_task_table())
        return
    raise_on_signals()
    options = {
        "model": model,
        "tasks": None if tasks is None else [name.strip() for name in tasks.split(",")],
        "output": str(output) if output else None,
        "data": str(data) if data else None,
        "sampling": {"n": n} if n else None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    results = _evaluate_and_report(
        str(config) if config else None, settings or [], options, console
    )
    if any(
        task["counts"]["failed"] or task["counts"]["infrastructure"] for task in results["tasks"]
    ):
        raise typer.Exit(EXIT_INCOMPLETE)


def run_compare(
    before: Annotated[Path, path_argument(help="Output folder of an evaluation.")],
    after: Annotated[Path, path_argument(help="Output folder of another, on the same problems.")],
) -> None:
    """Compare two evaluations: the paired difference in pass@1 with its interval."""
    from verl_pipeline.errors import UserError
    from verl_pipeline.evaluation.comparison import compare_folders

    console = _make_console()
    try:
        rows = compare_folders(before, after)
    except UserError as error:
        _print_error(str(error))
        raise typer.Exit(2) from error
    print_comparison(console, rows)


def run_watch(
    checkpoints: Annotated[Path, path_argument(help="The run's trainer.default_local_dir.")],
    settings: Overrides = None,
    tasks: Annotated[str, typer.Option(help="Task names, comma-separated.")] = "parquet",
    output: Annotated[Path, path_option(help="Folder for results.")] = Path("outputs/eval-watch"),
    data: Annotated[Path | None, path_option(help="Folder of local data files.")] = None,
    last_step: Annotated[int | None, typer.Option(min=1, help="Exit after this step.")] = None,
    idle_s: Annotated[
        float, typer.Option(min=1, help="Stop after this many seconds without a new checkpoint.")
    ] = 7200.0,
    cores: Annotated[str | None, typer.Option(help="Processors to run on, e.g. 6,7.")] = None,
    gpus: Annotated[
        str | None, typer.Option(help="CUDA_VISIBLE_DEVICES of the evaluations.")
    ] = None,
    trackers: Annotated[
        str, typer.Option(help="Names of verl's trackers, comma-separated.")
    ] = "console",
    project: Annotated[str, typer.Option(help="trainer.project_name for the trackers.")] = "eval",
    experiment: Annotated[
        str, typer.Option(help="trainer.experiment_name for the trackers.")
    ] = "eval",
) -> None:
    """Evaluate the checkpoints of a running training; trackers receive metrics eval/*."""
    from verl_pipeline.errors import UserError
    from verl_pipeline.evaluation.checkpoint_evaluation import WatchSettings
    from verl_pipeline.evaluation.checkpoint_watcher import watch_checkpoints
    from verl_pipeline.evaluation.override_texts import format_override

    # Exit through the finally blocks, which end the running evaluation with all its processes.
    handle_end_signals(lambda number, _frame: sys.exit(128 + number))
    console = _make_console()
    eval_settings = [
        f"tasks=[{tasks}]",
        *([format_override("data", str(data.resolve()))] if data else []),
    ]
    try:
        watch_settings = WatchSettings(
            checkpoints.resolve(),
            output.resolve(),
            [*eval_settings, *(settings or [])],
            last_step,
            idle_s,
            () if cores is None else cores.split(","),
            gpus,
            trackers.split(","),
            project,
            experiment,
        )
        rows = watch_checkpoints(watch_settings, console)
    except UserError as error:
        _print_error(str(error))
        raise typer.Exit(2) from error
    print_checkpoints(console, rows)


def _evaluate_and_report(
    config: str | None, overrides: list[str], options: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Evaluate, write the report and print the scores.

    Raises:
        typer.Exit: 2 after an error of the user, which is printed; 130 after an interrupt.
    """
    from verl_pipeline.errors import UserError
    from verl_pipeline.evaluation.evaluation_run import run_evaluation
    from verl_pipeline.evaluation.results_page import write_results_page
    from verl_pipeline.evaluation.settings_loader import load_eval_config
    from verl_pipeline.sandbox import SandboxError

    try:
        settings = load_eval_config(config, overrides, options)
        results = run_evaluation(settings, console)
        report = write_results_page(Path(settings.output))
    except KeyboardInterrupt:
        _print_error("interrupted; stored samples are kept: rerun the command to resume", "")
        raise typer.Exit(130) from None
    except (UserError, SandboxError) as error:
        _print_error(str(error))
        raise typer.Exit(2) from error
    print_scores(console, results)
    print_line(console, f"results: {Path(settings.output) / 'results.json'}, report: {report}")
    return results


def _make_console() -> Console:
    # Without a terminal, rich would fold tables to 80 columns.
    return Console(width=None if sys.stdout.isatty() else 140)


def _print_error(text: str, style: str = "red") -> None:
    """Print to standard error, so that it is seen when the scores go to a file."""
    print_line(Console(stderr=True), text, style)


def _make_task_table() -> Table:
    from verl_pipeline.evaluation.tasks import find_task, list_task_names

    table = Table("name", "title", "split", "n", "options")
    for task in map(find_task, list_task_names()):
        options = ", ".join(f"{name}={value}" for name, value in task.options.items())
        table.add_row(task.name, task.title, task.split, str(task.sampling.n), options)
    return table
