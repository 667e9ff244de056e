"""Reads a run's folder (:mod:`.records`): every record, on the driver's clock.

Invariants:
* A run that still writes, or was killed, is read as far as it is written; what could not be read is
  counted, and said in ``problems``.
* Nothing is written, locked or changed.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.errors import escape_controls, show_line
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.telemetry.clock import ClockFit
from verl_pipeline.telemetry.record_files import make_schema, parse_line, read_records, read_table
from verl_pipeline.telemetry.records import (
    Gauge,
    Header,
    Problem,
    Span,
    StepRecord,
    Text,
    TrajectoryEvent,
)
from verl_pipeline.telemetry.run_starts import (
    RunFolderError,
    find_files,
    find_telemetry,
    get_process,
    read_starts,
)
from verl_pipeline.telemetry.trajectory_table import make_trajectory_table

# A text's line: prompt and response of the longest contexts, in the longest escapes.
_TEXT_BYTES = 64 << 20
# Clocks that are known better than this need no word.
_CLOCK_ERROR_S = 0.1
_TIMES = {Span: ("start", "end"), Gauge: ("t",), TrajectoryEvent: ("t", "first_token")}


@dataclass(frozen=True, eq=False)
class Run:
    """A run, as far as it is written.

    Attributes:
        headers: the driver's, one a start of the run, oldest first; never empty.
        spans: the fields of ``Span``, sorted by start; ``detail`` is JSON text.
        gauges: the fields of ``Gauge``, sorted by ``t``.
        trajectories: see :func:`.trajectory_table.make_trajectory_table`.
        steps: one a step, ascending; the last one where a step was repeated after a resume.
        broken_lines: lines left out.
        problems: plain sentences to be shown with every figure made from this run.
        clocks: of the processes that are compared with the driver's.
        last_time: of any record.
        has_ended: the driver wrote that it reached the run's end.
    """

    folder: Path
    headers: list[Header]
    spans: pa.Table
    gauges: pa.Table
    trajectories: pa.Table
    steps: list[StepRecord]
    broken_lines: int
    problems: list[str]
    clocks: list[ClockFit]
    last_time: float
    has_ended: bool

    @property
    def header(self) -> Header:
        """The last start's."""
        return self.headers[-1]

    def read_texts(self, step: int | None = None) -> Iterator[Text]:
        """Yield the texts of a step, or all; a damaged end of a file is left out."""
        for path in find_files(find_telemetry(self.folder), "texts-*.jsonl.gz"):
            for line in _read_lines(path):
                values = parse_line(line, Text)
                if values is not None and step in (None, values["step"]):
                    yield Text(**values)


def load_run(folder: Path, last_bytes: int | None = None) -> Run:
    """Read a run.

    Args:
        folder: the run's folder, or the folder ``telemetry`` in it.
        last_bytes: of each file of spans, gauges and trajectories, read only this much of its end,
            for a look at what is going on. What was trained before is missing then.

    Raises:
        RunFolderError: it is no run's folder, or of another version, or cannot be read.
    """
    telemetry = find_telemetry(folder)
    try:
        return _load(folder, telemetry, last_bytes)
    except OSError as error:
        place = error.filename or folder
        raise RunFolderError(
            show_line(f"{place} cannot be read: {error.strerror or error}; correct its permissions")
        ) from error


def _load(folder: Path, telemetry: Path, last_bytes: int | None) -> Run:
    whole = read_starts(telemetry)
    headers, clocks, broken = whole.headers, whole.clocks, whole.broken_lines
    problems = []
    if not any(header.role == "driver" for header in headers):
        problems.append("the driver's record of its start is missing; another process's stands in")
    drivers = sorted((h for h in headers if h.role == "driver"), key=lambda h: h.started)
    starts = [header.started for header in drivers or headers[:1]]
    tables = {}
    for record, kind in ((Span, "spans"), (Gauge, "gauges"), (TrajectoryEvent, "trajectories")):
        tables[record], left_out = _read_kind(telemetry, kind, record, clocks, last_bytes)
        broken += left_out
    steps, left_out = _read_steps(telemetry, clocks)
    broken += left_out
    for path in find_files(telemetry, "problems-*.jsonl"):
        found, left_out = read_records(path, Problem)
        broken += left_out
        problems += [escape_controls(problem.text) for problem in found]
    spans = tables[Span].sort_by("start")
    events = tables[TrajectoryEvent]
    last_time = max(
        starts[-1],
        *(step.t for step in steps),
        *(
            table[name].to_numpy().max(initial=0.0)
            for table, name in ((spans, "end"), (tables[Gauge], "t"), (events, "t"))
        ),
    )
    ends = spans.filter((pc.field("name") == "end") & (pc.field("end") >= starts[-1]))
    errors = [json.loads(detail).get("error") for detail in ends["detail"].to_pylist()]
    problems += [escape_controls(f"the run failed: {error}")[:500] for error in errors if error]
    if broken:
        problems.append(f"{broken} lines were broken and are left out")
    compared = [clock for clock in clocks.values() if clock.samples]
    clock_error = max((clock.error_s for clock in compared), default=0.0)
    if clock_error > _CLOCK_ERROR_S:
        problems.append(f"clocks of other nodes may be wrong by {format_decimal(clock_error)} s")
    return Run(
        folder=folder,
        headers=drivers or headers[:1],
        spans=spans,
        gauges=tables[Gauge].sort_by("t"),
        trajectories=make_trajectory_table(events, starts),
        steps=steps,
        broken_lines=broken,
        problems=problems,
        clocks=compared,
        last_time=float(last_time),
        has_ended=ends.num_rows > 0,
    )


def _read_kind(
    telemetry: Path,
    kind: str,
    record: type,
    clocks: dict[str, ClockFit],
    last_bytes: int | None,
) -> tuple[pa.Table, int]:
    """Return the records of all processes, on the driver's clock, and the lines left out."""
    tables, broken = [make_schema(record).empty_table()], 0
    for path in find_files(telemetry, f"{kind}-*.jsonl"):
        table, left_out = read_table(path, record, last_bytes)
        broken += left_out
        clock = clocks.get(get_process(path))
        if clock is not None and clock.samples:
            for name in _TIMES[record]:
                times = table[name].to_numpy()
                shifted = pa.array(times + clock.get_offsets(times), from_pandas=True)
                index = table.schema.get_field_index(name)
                table = table.set_column(index, table.schema.field(index), shifted)
        tables.append(table)
    return pa.concat_tables(tables).combine_chunks(), broken


def _read_steps(telemetry: Path, clocks: dict[str, ClockFit]) -> tuple[list[StepRecord], int]:
    found, broken = [], 0
    for path in find_files(telemetry, "steps-*.jsonl"):
        records, left_out = read_records(path, StepRecord)
        broken += left_out
        clock = clocks.get(get_process(path), ClockFit([]))
        for record in records:
            offset = float(clock.get_offsets(np.array([record.t]))[0])
            numbers = {n: v for n, v in record.metrics.items() if _is_number(v)}
            found.append(StepRecord(record.t + offset, record.step, numbers))
    last = {record.step: record for record in sorted(found, key=lambda record: record.t)}
    return [last[step] for step in sorted(last)], broken


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_lines(path: Path) -> Iterator[bytes]:
    """Yield a compressed file's lines up to where it is damaged."""
    with gzip.open(path) as file:
        try:
            while line := file.readline(_TEXT_BYTES):
                yield line
        except (OSError, EOFError, zlib.error):
            return
