"""What a command prints when the run that it made is over: the report's path and its advice.

Invariant: a report that cannot be written never fails the run; one line says why there is none.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from verl_pipeline.errors import show_line


def write_end_report(console: Console, runs: Sequence[Path], page: Path) -> None:
    """Write the page of runs that are over, and print its path and each run's advice.

    Args:
        runs: their folders; those without records (``telemetry.enabled=False``) are left out.
        page: the file.
    """
    try:
        from verl_pipeline.report.report_files import write_report
        from verl_pipeline.telemetry.records import FOLDER

        recorded = [run for run in runs if any((run / FOLDER).glob("run-*.jsonl"))]
        if not recorded:
            _print_line(console, "report: none, for the run recorded nothing")
            return
        written = write_report(recorded, page)
        for view in written.views:
            name = f"{view.name}: " if len(written.views) > 1 else ""
            _print_line(console, f"advice: {name}{view.advice.sentence}")
        _print_line(console, f"report: {written.page}")
    except Exception as error:  # whatever it is, the run itself succeeded
        _print_line(console, f"report: none, {type(error).__name__}: {error}")


def _print_line(console: Console, text: str) -> None:
    console.print(Text(show_line(text)), soft_wrap=True)
