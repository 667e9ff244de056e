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

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.telemetry.record_files import make_schema, parse_line, read_records, read_table
from verl_pipeline.telemetry.records import (
    FOLDER,
    FORMAT,
    ClockSample,
    Gauge,
    Header,
    Span,
    StepRecord,
    Text,
    TrajectoryEvent,
)
from verl_pipeline.telemetry.trajectory_table import make_trajectory_table

# A text's line: prompt and response of the longest contexts, in the longest escapes.
_TEXT_BYTES = 64 << 20
# Clocks that are known better than this need no word.
_CLOCK_ERROR_S = 0.1
_TIMES = {Span: ("start", "end"), Gauge: ("t",), TrajectoryEvent: ("t", "first_token")}


class RunFolderError(UserError):
    """A folder is no run that can be read; the message says what is there and what to pass."""


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
    last_time: float
    has_ended: bool

    @property
    def header(self) -> Header:
        """The last start's."""
        return self.headers[-1]

    def read_texts(self, step: int | None = None) -> Iterator[Text]:
        """Yield the texts of a step, or all; a damaged end of a file is left out."""
        for path in sorted(_find_telemetry(self.folder).glob("texts-*.jsonl.gz")):
            for line in _read_lines(path):
                values = parse_line(line, Text)
                if values is not None and step in (None, values["step"]):
                    yield Text(**values)


def load_run(folder: Path) -> Run:
    """Read a run.

    Args:
        folder: the run's folder, or the folder ``telemetry`` in it.

    Raises:
        RunFolderError: it is no run's folder, or of another version, or cannot be read.
    """
    telemetry = _find_telemetry(folder)
    try:
        return _load(folder, telemetry)
    except OSError as error:
        place = error.filename or folder
        raise RunFolderError(
            show_line(f"{place} cannot be read: {error.strerror or error}; correct its permissions")
        ) from error


def _load(folder: Path, telemetry: Path) -> Run:
    headers, clocks, broken, errors = _read_headers(telemetry)
    if not headers:
        raise RunFolderError(
            show_line(
                f"{telemetry} has no complete record of a run's start (run-*.jsonl); if the run is "
                "starting, try again in a minute"
            )
        )
    problems = _check_headers(headers)
    drivers = sorted((h for h in headers if h.role == "driver"), key=lambda h: h.started)
    starts = [header.started for header in drivers or headers[:1]]
    tables = {}
    for record, kind in ((Span, "spans"), (Gauge, "gauges"), (TrajectoryEvent, "trajectories")):
        tables[record], left_out = _read_kind(telemetry, kind, record, clocks)
        broken += left_out
    steps, left_out = _read_steps(telemetry, clocks)
    broken += left_out
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
    ends = spans.filter(pc.field("name") == "end")["end"].to_numpy()
    if broken:
        problems.append(f"{broken} lines were broken and are left out")
    if errors and max(errors) > _CLOCK_ERROR_S:
        problems.append(f"clocks of other nodes may be wrong by {max(errors):.1f} s")
    return Run(
        folder=folder,
        headers=drivers or headers[:1],
        spans=spans,
        gauges=tables[Gauge].sort_by("t"),
        trajectories=make_trajectory_table(events, starts),
        steps=steps,
        broken_lines=broken,
        problems=problems,
        last_time=float(last_time),
        has_ended=bool((ends >= starts[-1]).any()),
    )


def _find_telemetry(folder: Path) -> Path:
    """Return the folder of a run's records."""
    try:
        if not folder.exists():
            raise RunFolderError(show_line(f"{folder}: no such folder; give the folder of a run"))
        if not folder.is_dir():
            raise RunFolderError(show_line(f"{folder} is a file; give the folder of a run"))
        for telemetry in (folder / FOLDER, folder):
            if any(telemetry.glob("run-*.jsonl")):
                return telemetry
        runs = sorted(path.parent.parent for path in folder.glob(f"*/{FOLDER}/run-*.jsonl"))
        names = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise RunFolderError(
            show_line(f"{folder} cannot be read: {reason}; correct the path or its permissions")
        ) from error
    if runs:
        raise RunFolderError(show_line(f"{folder} holds runs; give one of them, e.g. {runs[-1]}"))
    there = (
        f"it holds {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else "it is empty"
    )
    raise RunFolderError(
        show_line(
            f"{folder} is no run: no {FOLDER}/run-*.jsonl in it; {there}; give the folder that the "
            "run printed when it started"
        )
    )


def _read_headers(
    telemetry: Path,
) -> tuple[list[Header], dict[str, list[ClockSample]], int, list[float]]:
    """Return all headers, the clock samples by process, broken lines, and the clocks' errors.

    Raises:
        RunFolderError: another version wrote them.
    """
    headers: list[Header] = []
    clocks: dict[str, list[ClockSample]] = {}
    errors, broken = [], 0
    for path in sorted(telemetry.glob("run-*.jsonl")):
        samples = []
        for line in filter(bytes.strip, path.read_bytes().split(b"\n")):
            if header := parse_line(line, Header):
                headers.append(Header(**header))
            elif sample := parse_line(line, ClockSample):
                samples.append(ClockSample(**sample))
            elif (form := _read_format(line)) not in (None, FORMAT):
                raise RunFolderError(
                    show_line(
                        f"{path} has records of format {form}, and this verl-pipeline reads "
                        f"{FORMAT}; use the verl-pipeline that wrote it"
                    )
                )
            else:
                broken += 1
        clocks[_get_process(path)] = sorted(samples, key=lambda sample: sample.t)
        errors += [sample.error_s for sample in samples[-1:]]
    return headers, clocks, broken, errors


def _read_format(line: bytes) -> Any:
    """Return the format that a line names, whatever else it has; None if it names none."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values.get("format") if isinstance(values, dict) else None


def _check_headers(headers: list[Header]) -> list[str]:
    """Return what is to be said of the headers.

    Raises:
        RunFolderError: another version wrote them.
    """
    for header in headers:
        if header.format != FORMAT:
            version = header.versions.get("verl-pipeline", "of another version")
            raise RunFolderError(
                show_line(
                    f"run {header.run_name} has records of format {header.format}, and this "
                    f"verl-pipeline reads {FORMAT}; use the verl-pipeline that wrote it ({version})"
                )
            )
    if not any(header.role == "driver" for header in headers):
        return ["the driver's record of its start is missing; another process's stands for it"]
    return []


def _read_kind(
    telemetry: Path, kind: str, record: type, clocks: dict[str, list[ClockSample]]
) -> tuple[pa.Table, int]:
    """Return the records of all processes, on the driver's clock, and the lines left out."""
    tables, broken = [make_schema(record).empty_table()], 0
    for path in sorted(telemetry.glob(f"{kind}-*.jsonl")):
        table, left_out = read_table(path, record)
        broken += left_out
        if samples := clocks.get(_get_process(path)):
            for name in _TIMES[record]:
                times = table[name].to_numpy()
                shifted = pa.array(times + _get_offsets(samples, times), from_pandas=True)
                index = table.schema.get_field_index(name)
                table = table.set_column(index, table.schema.field(index), shifted)
        tables.append(table)
    return pa.concat_tables(tables).combine_chunks(), broken


def _read_steps(
    telemetry: Path, clocks: dict[str, list[ClockSample]]
) -> tuple[list[StepRecord], int]:
    found, broken = [], 0
    for path in sorted(telemetry.glob("steps-*.jsonl")):
        records, left_out = read_records(path, StepRecord)
        broken += left_out
        samples = clocks.get(_get_process(path))
        for record in records:
            offset = float(_get_offsets(samples, np.array([record.t]))[0]) if samples else 0.0
            numbers = {n: v for n, v in record.metrics.items() if _is_number(v)}
            found.append(StepRecord(record.t + offset, record.step, numbers))
    last = {record.step: record for record in sorted(found, key=lambda record: record.t)}
    return [last[step] for step in sorted(last)], broken


def _get_offsets(samples: list[ClockSample], times: np.ndarray) -> np.ndarray:
    """Return what is to be added to times of a process, in seconds; between samples it is linear.

    Args:
        times: float64 [records], NaN where unknown.
    """
    at = np.array([sample.t for sample in samples])
    offsets = np.array([sample.offset_s for sample in samples])
    return np.where(np.isnan(times), 0.0, np.interp(np.nan_to_num(times), at, offsets))


def _get_process(path: Path) -> str:
    """Return ``<process>`` of ``<kind>-<process>.jsonl``."""
    return path.name.partition("-")[2].removesuffix(".jsonl")


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
