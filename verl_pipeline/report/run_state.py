"""Whether a run ended, goes on or died, and where.

Invariant: a run that did not say that it ended is "running" only while its files grow; after
:data:`QUIET_S` without a record it counts as dead, and the sentence says since when.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.report.columns import read_categories, read_numbers
from verl_pipeline.report.palette import label_name
from verl_pipeline.telemetry.records import FOLDER
from verl_pipeline.telemetry.run_folder import Run

# Gauges are written every few seconds; clocks of file servers may be seconds off.
QUIET_S = 120.0


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    Attributes:
        name: ``ended``, ``running`` or ``died``.
        sentence: where it is or died; empty for one that ended.
    """

    name: str
    sentence: str


def read_state(run: Run, now: float | None = None) -> RunState:
    """Return the state of a run.

    Args:
        now: seconds since the epoch, on the clock of the run's files.
    """
    if run.has_ended:
        return RunState("ended", "")
    quiet_s = (time.time() if now is None else now) - _read_last_write(run.folder)
    steps = [record.step for record in run.steps]
    step = max(steps) + 1 if steps else run.header.first_step
    last = run.header.last_step
    if quiet_s < QUIET_S:
        return RunState("running", f"Step {step} of {last} is going on.")
    when = datetime.fromtimestamp(run.last_time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    after = format_duration(run.last_time - run.headers[0].started)
    return RunState(
        "died",
        f"It died, or hangs, in step {step} of {last}{_name_last_span(run)}. Its last record is of "
        f"{when}, {after} after its start; nothing was written in the last "
        f"{format_duration(quiet_s)}.",
    )


def _read_last_write(folder: Path) -> float:
    files = [*(folder / FOLDER).glob("*"), *folder.glob("*.jsonl")]
    times = [path.stat().st_mtime for path in files if path.is_file()]
    return max(times, default=0.0)


def _name_last_span(run: Run) -> str:
    lane = read_categories(run.spans, "lane").select("driver")
    names = read_categories(run.spans, "name")
    own = np.flatnonzero(lane & ~names.select("step"))
    if not len(own):
        return ""
    last = own[read_numbers(run.spans, "end")[own].argmax()]
    label = label_name(names.names[names.codes[last]])
    return f"; the last thing that the driver finished is: {label}"


def format_duration(seconds: float) -> str:
    """Return ``41.3 s``, ``12 min 5 s``, ``3 h 12 min`` or ``2 d 4 h``."""
    if seconds < 60:
        return f"{format_decimal(seconds)} s"
    whole = round(seconds)
    for unit, low, size, small in (("min", "s", 60, 1), ("h", "min", 3600, 60)):
        if whole < size * (60 if unit == "min" else 24):
            return f"{whole // size} {unit} {whole % size // small} {low}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
