"""The command ``verl-pipeline report``."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.path_options import path_argument, path_option

MINIMUM_WATCH_S = 5.0


def run_report(
    runs: Annotated[
        list[Path],
        path_argument(help="Folders of runs, as they were printed when the runs started."),
    ],
    output: Annotated[
        Path | None,
        path_option(help="The page; by default report.html in the first run's folder."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again and again, until the runs end.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=MINIMUM_WATCH_S, help="With --watch: seconds between two pages.")
    ] = 30.0,
    trace: Annotated[
        Path | None,
        path_option(
            "--trace",
            help="Also write the run as trace events, which Perfetto and chrome://tracing open; a "
            "name that ends with .gz is compressed.",
        ),
    ] = None,
) -> None:
    """Show where every second of a run went: in the terminal, and as one HTML page.

    Several runs are set side by side. Example: verl-pipeline report outputs/run-1 outputs/run-2
    """
    if trace is not None and len(runs) > 1:
        raise typer.BadParameter(f"--trace takes one run, and there are {len(runs)}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        _write_reports(console, runs, output, every if watch else None, trace)
    except UserError as error:
        message = Text(f"error: {show_line(str(error))}", "red")
        Console(stderr=True).print(message, soft_wrap=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted: the last page is complete")
        raise typer.Exit(130) from None


def _write_reports(
    console: Console, runs: list[Path], output: Path | None, every: float | None, trace: Path | None
) -> None:
    """Write the page, with ``every`` again after so many seconds as long as a run goes on."""
    from verl_pipeline.report.report_files import write_report, write_run_trace
    from verl_pipeline.report.terminal import print_views

    written = write_report(runs, output, every)
    print_views(console, written.views)
    _print_line(console, f"page: {written.page} ({format_decimal(written.size / 1e6)} MB)")
    while every is not None and any(view.state.name == "running" for view in written.views):
        time.sleep(every)
        written = write_report(runs, output, every)
        steps = ", ".join(f"{len(view.run.steps)} steps" for view in written.views)
        _print_line(console, f"page written again: {steps}")
    if trace is not None:
        events = write_run_trace(written.views[0], trace)
        _print_line(console, f"trace: {trace} ({events:,} events)")


def _print_line(console: Console, text: str) -> None:
    console.print(Text(show_line(text)), soft_wrap=True)
