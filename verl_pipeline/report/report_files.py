"""``verl-pipeline report``: reads runs, and writes page and trace.

Invariant: runs are only read; the page and the trace are the only files written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.outputs.files import refuse_foreign_text
from verl_pipeline.report.comparison import name_views, show_comparison
from verl_pipeline.report.page import Charts, write_page
from verl_pipeline.report.run_content import show_run
from verl_pipeline.report.run_view import RunView, make_view
from verl_pipeline.report.trace_events import write_trace
from verl_pipeline.telemetry.run_folder import load_run

PAGE_NAME = "report.html"
MARK = "verl-pipeline report"


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
    refuse_foreign_text(page, MARK, "a page of verl-pipeline report")
    runs = [load_run(folder) for folder in folders]
    views = name_views([make_view(run, run.header.run_name or run.folder.name) for run in runs])
    charts = Charts()
    shown = [show_run(view, charts, len(views)) for view in views]
    goes_on = any(view.state.name == "running" for view in views)
    context: dict[str, Any] = {
        "mark": MARK,
        "title": f"{' and '.join(view.name for view in views)}: report",
        "runs": [context for context, _ in shown],
        "comparison": show_comparison(views, charts) if len(views) > 1 else None,
        "refresh_s": refresh_s if goes_on else None,
    }
    data = {f"rollout-data-{i}": rollouts.encode() for i, (_, rollouts) in enumerate(shown)}
    size = write_page(page, "run.html.jinja", context, charts, data)
    return WrittenReport(page, size, views)


def write_run_trace(view: RunView, path: Path) -> int:
    """Write the trace of a run, and return its number of events; see :func:`.write_trace`."""
    return write_trace(path, view.run, view.rows, view.began)
