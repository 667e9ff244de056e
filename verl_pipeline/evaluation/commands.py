"""Command line of evaluation: ``eval``, ``eval-compare`` and ``eval-watch``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_pipeline.evaluation.results import INCOMPLETE
from verl_pipeline.processes import raise_on_signals

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Further settings, as in engine.kind=server; all: docs/evaluation.md."),
]


def evaluate(
    settings: Overrides = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or hub name; canonical, empty, or answers as JSONL.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Names, with commas between them.")] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="Samples a problem; the task's own by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for samples, results and report.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of local data files.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with any of the settings.")] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="Show the tasks and stop.")] = False,
) -> None:
    """Evaluate a model; a second call goes on where a first was stopped. Exit 3: samples are
    missing; 2: refused.
    """
    console = _console()
    if list_tasks:
        console.print(_task_table())
        return
    raise_on_signals()
    given = {
        "model": model,
        "tasks": tasks.split(",") if tasks else None,
        "output": str(output) if output else None,
        "data": str(data) if data else None,
        "sampling": {"n": n} if n else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    results = _run(str(config) if config else None, settings or [], given, console)
    if any(
        task["counts"]["failed"] or task["counts"]["infrastructure"] for task in results["tasks"]
    ):
        raise typer.Exit(INCOMPLETE)


def compare(
    before: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    after: Annotated[Path, typer.Argument(help="Folder of another, with the same problems.")],
) -> None:
    """Compare two evaluations problem by problem: the difference with its interval, not two
    separate numbers.
    """
    from verl_pipeline.evaluation.compare import compare_folders
    from verl_pipeline.evaluation.errors import Refused

    console = _console()
    try:
        rows = compare_folders(before, after)
    except Refused as error:
        _say(console, str(error), "red")
        raise typer.Exit(2) from error
    table = Table(
        "task",
        "problems",
        "before",
        "after",
        "difference, 95 %",
        "better / worse",
        caption="paired by problem",
    )
    for row in rows:
        table.add_row(
            row["task"],
            str(row["problems"]),
            f"{row['before']:.1%}",
            f"{row['after']:.1%}",
            f"{100 * row['value']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}] points",
            f"{row['better']} / {row['worse']}",
        )
    console.print(table)
    for row in rows:
        for note in row["notes"]:
            _say(console, f"{row['task']}: {note}", "yellow")


def watch(
    checkpoints: Annotated[Path, typer.Argument(help="The run's trainer.default_local_dir.")],
    settings: Overrides = None,
    tasks: Annotated[str, typer.Option(help="Names, with commas between them.")] = "parquet",
    output: Annotated[Path, typer.Option(help="Folder for results.")] = Path("outputs/eval-watch"),
    data: Annotated[Path | None, typer.Option(help="Folder of local data files.")] = None,
    last_step: Annotated[int | None, typer.Option(min=1, help="End after this step.")] = None,
    idle_s: Annotated[
        float, typer.Option(min=1, help="Longest wait for a checkpoint, in seconds.")
    ] = 7200.0,
    cores: Annotated[str | None, typer.Option(help="Processors to run on, as in 6,7.")] = None,
    gpus: Annotated[
        str | None, typer.Option(help="CUDA_VISIBLE_DEVICES of the evaluations.")
    ] = None,
    trackers: Annotated[
        str, typer.Option(help="verl's names, with commas between them.")
    ] = "console",
    project: Annotated[str, typer.Option(help="For the trackers: trainer.project_name.")] = "eval",
    experiment: Annotated[
        str, typer.Option(help="For the trackers: trainer.experiment_name.")
    ] = "eval",
) -> None:
    """Evaluate the checkpoints of a training run as they come, beside it; results go to the
    trackers as eval/*.
    """
    import signal

    from verl_pipeline.evaluation.errors import Refused
    from verl_pipeline.evaluation.watch import Watch, watch

    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the evaluation under way ends with us
        signal.signal(number, lambda *_: sys.exit(143))
    console = _console()
    given = [f"tasks=[{tasks}]", *([f"data={data.resolve()}"] if data else []), *(settings or [])]
    try:
        watched = Watch(
            checkpoints.resolve(),
            output.resolve(),
            given,
            last_step,
            idle_s,
            cores.split(",") if cores else (),
            gpus,
            trackers.split(","),
            project,
            experiment,
        )
        rows = watch(watched, console)
    except Refused as error:
        _say(console, str(error), "red")
        raise typer.Exit(2) from error
    console.print(checkpoint_table(rows))


def checkpoint_table(rows: list[dict[str, Any]]) -> Table:
    """A row a checkpoint, with intervals; the best of each task is marked."""
    names = list(dict.fromkeys(name for row in rows for name in row["tasks"]))
    best = {
        name: max(
            (
                task["pass@1"]["value"]
                for row in rows
                if (task := row["tasks"].get(name)) and task["pass@1"]
            ),
            default=None,
        )
        for name in names
    }
    table = Table(
        "step", "weights", *names, caption="* best; differences within the intervals say nothing"
    )
    for row in rows:
        scores = [row["tasks"][name]["pass@1"] if name in row["tasks"] else None for name in names]
        cells = [
            percent(score) + (" *" if score and score["value"] == best[name] else "")
            for name, score in zip(names, scores, strict=True)
        ]
        table.add_row(str(row["step"]), (row["weights"] or "-")[:12], *cells)
    return table


def _run(
    config: str | None, overrides: list[str], given: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Evaluate, write the report, print the scores; what is refused is one red line and exit 2."""
    from verl_pipeline.evaluation.config import load_config
    from verl_pipeline.evaluation.errors import Refused
    from verl_pipeline.evaluation.report import write_report
    from verl_pipeline.evaluation.run import evaluate as run
    from verl_pipeline.sandbox import SandboxError

    try:
        settings = load_config(config, overrides, given)
        results = run(settings, console)
    except KeyboardInterrupt:
        _say(console, "stopped; what is stored is kept, and the same command goes on from there")
        raise typer.Exit(130) from None
    except (Refused, SandboxError) as error:
        _say(console, str(error), "red")
        raise typer.Exit(2) from error
    report = write_report(Path(settings.output))
    console.print(score_table(results))
    for task in results["tasks"]:
        for note in task["data"]["notes"]:
            _say(console, f"{task['task']}: {note}", "dim")
    for warning in results["warnings"]:
        _say(console, warning, "yellow")
    _say(console, f"results: {Path(settings.output) / 'results.json'}, report: {report}")
    return results


def score_table(results: dict[str, Any]) -> Table:
    """A row a task, with intervals."""
    table = Table(title=Text(results["model"]["name"]), caption="95 % intervals over problems")
    for column in (
        "task",
        "problems x n",
        "pass@1",
        "pass@k",
        "vote of k",
        "truncated",
        "tokens",
        "grader",
    ):
        table.add_column(column)
    for task in results["tasks"]:
        counts, n = task["counts"], task["sampling"]["n"]
        table.add_row(
            task["title"],
            f"{counts['problems']} x {n}",
            percent(task["pass@1"]),
            _largest(task["pass@k"]),
            _largest(task["cons@k"]),
            f"{counts['truncated'] / max(1, counts['samples']):.1%}",
            f"{task['lengths']['mean']:.0f}" if task["lengths"] else "-",
            f"{task['grader']}: {task['tier']}",
        )
    return table


def _largest(curve: list[dict[str, Any]]) -> str:
    return f"{percent(curve[-1])} (k={curve[-1]['k']})" if curve and curve[-1]["k"] > 1 else "-"


def percent(interval: dict[str, Any] | None) -> str:
    """``12.3 % [10.1, 14.9]``."""
    if interval is None:
        return "-"
    text = f"{100 * interval['value']:.1f} %"
    return (
        text
        if interval["low"] is None
        else f"{text} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
    )


def _say(console: Console, text: str, style: str = "") -> None:
    """As it is: brackets in it are no markup, and no line is broken."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    """Into a file, rich would fold tables to 80 columns."""
    return Console(width=None if sys.stdout.isatty() else 140)


def _task_table() -> Table:
    from verl_pipeline.evaluation.tasks import names, task_of

    table = Table("name", "what", "split", "n", "options")
    for task in map(task_of, names()):
        options = ", ".join(f"{name}={value}" for name, value in task.options.items())
        table.add_row(task.name, task.title, task.split, str(task.sampling.n), options)
    return table
