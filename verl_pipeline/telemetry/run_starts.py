"""Finds a run's folder and reads what its processes say of themselves: headers and clocks."""

import json
from dataclasses import dataclass
from pathlib import Path

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.telemetry.clock import ClockFit, fit_clock
from verl_pipeline.telemetry.record_files import parse_line
from verl_pipeline.telemetry.records import FOLDER, FORMAT, ClockSample, Header


class RunFolderError(UserError):
    """A folder is no run that can be read; the message says what is there and what to pass."""


@dataclass(frozen=True)
class Starts:
    """What the files ``run-*.jsonl`` say.

    Attributes:
        headers: of all processes.
        clocks: by process.
        broken_lines: lines left out.
    """

    headers: list[Header]
    clocks: dict[str, ClockFit]
    broken_lines: int


def find_telemetry(folder: Path) -> Path:
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
    except RunFolderError:
        raise
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


def read_starts(telemetry: Path) -> Starts:
    """Read headers and clocks.

    Raises:
        RunFolderError: another version wrote them, or no header is complete.
    """
    headers: list[Header] = []
    clocks: dict[str, ClockFit] = {}
    broken = 0
    for path in find_files(telemetry, "run-*.jsonl"):
        samples = []
        for line in filter(bytes.strip, path.read_bytes().split(b"\n")):
            _check_format(path, line)
            if header := parse_line(line, Header):
                headers.append(Header(**header))
            elif sample := parse_line(line, ClockSample):
                samples.append(ClockSample(**sample))
            else:
                broken += 1
        clocks[get_process(path)] = fit_clock(samples)
    if not headers:
        raise RunFolderError(
            show_line(
                f"{telemetry} has no complete record of a run's start (run-*.jsonl); if the run is "
                "starting, try again in a minute"
            )
        )
    return Starts(headers, clocks, broken)


def _check_format(path: Path, line: bytes) -> None:
    """Refuse a line that names another format, whatever else it has."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return
    form = values.get("format", FORMAT) if isinstance(values, dict) else FORMAT
    if form == FORMAT:
        return
    versions = values.get("versions")
    version = versions.get("verl-pipeline") if isinstance(versions, dict) else None
    raise RunFolderError(
        show_line(
            f"{path} has records of format {str(form)[:20]}, and this verl-pipeline reads {FORMAT};"
            f" use the verl-pipeline that wrote it ({version or 'unknown version'})"
        )
    )


def find_files(telemetry: Path, pattern: str) -> list[Path]:
    """Return the files whose names match, sorted; what is no file (a pipe may never end) is not."""
    return sorted(path for path in telemetry.glob(pattern) if path.is_file())


def get_process(path: Path) -> str:
    """Return ``<process>`` of ``<kind>-<process>.jsonl``."""
    return path.name.partition("-")[2].removesuffix(".jsonl")
