"""``verl-pipeline report``: reads runs, and writes page and trace.

Invariant: runs are only read; the page and the trace are the only files written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verl_pipeline import __version__
from verl_pipeline.report.comparison import name_views, show_comparison
from verl_pipeline.report.figures import encode_figure
from verl_pipeline.report.page import refuse_other_file, write_page
from verl_pipeline.report.run_content import Charts, show_run
from verl_pipeline.report.run_view import RunView, make_view
from verl_pipeline.report.trace_events import write_trace
from verl_pipeline.telemetry.run_folder import load_run

PAGE_NAME = "report.html"


@dataclass(frozen=True)
class WrittenReport:
    """What was written.

    Attributes:
        size: of the page, in bytes.
        views: what was shown of each run.
    """

    page: Path
    size: int
    views: list[RunView]


def write_report(
    folders: Sequence[Path], page: Path | None = None, refresh_s: float | None = None
) -> WrittenReport:
    """Write the page of one run or several.

    Args:
        folders: of the runs.
        page: the file; by default ``report.html`` in the folder of the first run.
        refresh_s: seconds after which the page loads itself anew, as long as a run goes on.

    Raises:
        RunFolderError: a folder is no run that can be read.
        OutputError: the file cannot be written, or is not a report.
    """
    page = page or folders[0] / PAGE_NAME
    refuse_other_file(page)
    runs = [load_run(folder) for folder in folders]
    views = name_views([make_view(run, run.header.run_name or run.folder.name) for run in runs])
    charts = Charts()
    shown = [show_run(view, charts, len(views)) for view in views]
    goes_on = any(view.state.name == "running" for view in views)
    context: dict[str, Any] = {
        "title": f"{' and '.join(view.name for view in views)}: report",
        "runs": [context for context, _ in shown],
        "comparison": show_comparison(views, charts) if len(views) > 1 else None,
        "refresh_s": refresh_s if goes_on else None,
        "footer": f"verl-pipeline {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
    items = {name: encode_figure(chart) for name, chart in charts.items.items()}
    size = write_page(page, context, items, [rollouts.encode() for _, rollouts in shown])
    return WrittenReport(page, size, views)


def write_run_trace(view: RunView, path: Path) -> int:
    """Write the trace of a run, and return its number of events; see :func:`.write_trace`."""
    return write_trace(path, view.run, view.rows, view.began)
