"""The commands ``ledger`` and ``top``.

Invariants:
* They write no file, so they work on a run that still writes and on one of another user.
* Nothing that a run has recorded reaches the terminal unescaped.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from verl_pipeline.path_options import path_argument

EXIT_UNSOUND, EXIT_REFUSED = 1, 2
_WIDEST = 100_000
_COLUMNS = (
    "prompt",
    "session",
    "state",
    "batch",
    "step",
    "replica",
    "reward_worker",
    "first_version",
    "last_version",
    "version_spans",
    "response_tokens",
    "reward",
    "verdict",
    "reason",
)
_MOMENTS = (
    "submitted",
    "started",
    "begun",
    "generated",
    "graded",
    "failed",
    "filtered",
    "trained",
)


def run_ledger(
    run: Annotated[Path, path_argument(help="Folder of a run.")],
    uid: Annotated[str | None, typer.Option(help="Show the trajectories of this prompt.")] = None,
    step: Annotated[
        int | None, typer.Option(help="Show those that this step trained or filtered.")
    ] = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="Show those that a finished step left out.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows of the table at most.")] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all rows as JSON lines, times in seconds.")
    ] = False,
) -> None:
    """Show the life of each prompt of a run; without a selection, check that none is missing.

    Exit code 0: no prompt is missing or doubled.

    1: one is, or the selection is empty.

    2: the folder is no run, or cannot be read.
    """
    from verl_pipeline.telemetry.ledger import check_ledger, select_prompts

    loaded = _load(run)
    if uid is None and step is None and not lost:
        if as_json:
            raise typer.BadParameter("--json needs --uid, --step or --lost")
        check = check_ledger(loaded)
        _print_check(check)
        raise typer.Exit(0 if check.is_sound else EXIT_UNSOUND)
    rows = select_prompts(loaded, uid=uid, step=step, is_lost=lost)
    if as_json:
        for row in rows.to_pylist():
            typer.echo(json.dumps(row))
    else:
        _print_rows(rows, loaded.headers[0].started, limit)
    if rows.num_rows == 0:
        typer.echo("no trajectory is selected", err=True)
    # A selection of lost ones is what should be empty.
    raise typer.Exit(EXIT_UNSOUND if (rows.num_rows > 0) == lost else 0)


def run_top(
    run: Annotated[Path, path_argument(help="Folder of a run.")],
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two frames.")
    ] = 2.0,
) -> None:
    """Follow a run in the terminal: step, reward, pools, replicas, what is waited for.

    It reads the run's folder only, and ends with q or Ctrl-C. Without a terminal it prints one
    frame.

    Exit code 2: the folder is no run, or cannot be read.
    """
    from rich.console import Console

    from verl_pipeline.errors import UserError
    from verl_pipeline.telemetry.live import load_end, make_frame, measure_age

    console = Console(width=None if sys.stdout.isatty() else 140)

    def make() -> Any:
        return make_frame(load_end(run), measure_age(run))

    try:
        if once or not console.is_terminal:
            console.print(make())
            return
        _follow(console, make, every)
    except (UserError, OSError) as error:
        _refuse(error)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _follow(console: Any, make: Any, every: float) -> None:
    """Show frames until q is pressed, or a signal ends the command."""
    from rich.live import Live

    from verl_pipeline.processes import raise_on_signals
    from verl_pipeline.telemetry.keyboard import read_keys

    raise_on_signals()
    frame = make()  # an error is shown on the screen that the user sees
    with read_keys() as wait_for_key, Live(frame, console=console, screen=True) as live:
        while wait_for_key(every) not in ("q", "Q"):
            live.update(make(), refresh=True)


def _load(folder: Path) -> Any:
    from verl_pipeline.errors import UserError
    from verl_pipeline.telemetry.run_folder import load_run

    try:
        return load_run(folder)
    except UserError as error:
        _refuse(error)


def _refuse(error: Exception) -> None:
    from verl_pipeline.errors import show_line

    typer.echo(show_line(str(error)), err=True)
    raise typer.Exit(EXIT_REFUSED) from error


def _print_check(check: Any) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(check.states.items()))
    typer.echo(f"{check.prompts} prompts, {check.trajectories} trajectories: {states or 'none'}")
    if check.left_over:
        typer.echo(f"{check.left_over} trajectories were sampled ahead, and the run ended first")
    findings = [
        (check.lost.num_rows, "neither trained nor filtered nor failed", check.lost),
        (check.doubled.num_rows, "trained twice, or trained and filtered", check.doubled),
    ]
    for count, words, rows in findings:
        if count:
            names = _show_names(rows.slice(0, 5)["prompt"].to_pylist(), count)
            typer.echo(f"{count} trajectories were {words}: {names}")
    if check.short:
        names = _show_names([prompt for prompt, _ in check.short[:5]], len(check.short))
        typer.echo(f"{len(check.short)} prompts lack trajectories: {names}")
    if check.is_sound:
        typer.echo("no prompt of a finished step is missing or doubled")


def _show_names(names: list[str], count: int) -> str:
    from verl_pipeline.errors import show_line

    shown = [show_line(name)[:80] for name in dict.fromkeys(names)]
    return ", ".join([*shown, *(["..."] if count > len(names) else [])])


def _print_rows(rows: Any, start: float, limit: int) -> None:
    """Print trajectories as a table; moments are seconds since the run's start."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from verl_pipeline.errors import show_line
    from verl_pipeline.number_formats import format_decimal

    cells = []
    for row in rows.slice(0, limit).to_pylist():
        values = ["-" if row[name] is None else show_line(str(row[name])) for name in _COLUMNS]
        times = [row[name] for name in _MOMENTS]
        values += ["-" if t is None else format_decimal(t - start) for t in times]
        cells.append(values)
    table = Table(box=None, pad_edge=False)
    kept = []
    for place, name in enumerate((*_COLUMNS, *_MOMENTS)):
        if any(values[place] != "-" for values in cells):
            kept.append(place)
            table.add_column(name, no_wrap=True)
    for values in cells:
        table.add_row(*(Text(values[place]) for place in kept))
    # Rows stay whole: what is copied from them, or searched in them, is not cut.
    console = Console()
    options = console.options.update(width=_WIDEST)
    console.width = max(Measurement.get(console, options, table).maximum, 1)
    if cells:
        console.print(table)
    if rows.num_rows > limit:
        typer.echo(f"and {rows.num_rows - limit} more; --limit shows more, --json all")
