"""Reads what ``verl-pipeline grade`` is given: problems and solutions, one JSON object a line.

A problem is ``{"id": ..., "source": "taco", "tests": ...}``, with ``time_s``, ``memory_bytes``,
``prelude`` and ``entry_point`` where they differ from the source's. ``tests`` is what the source
publishes (:mod:`.readers`); without it, the whole row is read. A solution is
``{"id": ..., "program": "..."}`` or ``{"id": ..., "response": "..."}``; several solutions may have
the same id.

Invariants:
* A line that cannot be read is reported with its file, number and field, and what was expected;
  all other lines are read.
* Every solution line becomes a solution or a bad line; none is lost.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from verl_pipeline.grading.grading_files import CandidateSolution
from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.readers import READERS, BadRow, MissingFields, read_problem
from verl_pipeline.grading.readers.row_values import describe_value, parse_json
from verl_pipeline.input_files import InputError, check_json_lines

# A shorter limit stops right programs while they start, a longer one stops none within a day.
MIN_TIME_S, MAX_TIME_S = 0.01, 86400.0
# The interpreter alone takes up to 28 MiB here.
MIN_MEMORY_BYTES, MAX_MEMORY_BYTES = 64 << 20, 1 << 44
_MAX_SHOWN_CHARACTERS = 80


class LineFault(StrEnum):
    """Why a line has no verdict; the value names it in the totals."""

    BAD_LINE = "bad line"
    BAD_PROBLEM = "its problem is a bad line"
    NO_PROBLEM = "no such problem"


@dataclass(frozen=True)
class BadLine:
    """A line that could not be read."""

    path: Path
    line: int
    reason: str
    fault: LineFault = LineFault.BAD_LINE

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass
class ProblemFile:
    """What a file of problems holds.

    Attributes:
        problems: by id.
        bad_lines: those that could not be read.
        lines: by id, also of problems that have an id and cannot be read otherwise.
    """

    path: Path
    problems: dict[str, Problem] = field(default_factory=dict)
    bad_lines: list[BadLine] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)


def read_problems(path: Path) -> ProblemFile:
    """Read a file of problems.

    Raises:
        InputError: it cannot be read, or has no line.
    """
    file = ProblemFile(path)
    for number, row in _read_rows(path, file.bad_lines):
        try:
            name = _read_id(row)
            first = file.lines.setdefault(name, number)
            if first != number:
                raise BadRow(f"id: {_show(name)} is in line {first} already; expected each id once")
            file.problems[name] = _read_problem_row(row, name)
        except ValueError as error:
            file.bad_lines.append(BadLine(path, number, str(error)))
    if not file.problems and not file.bad_lines:
        raise InputError(f"{path} has no line; expected one problem a line")
    return file


def read_solutions(
    path: Path, problem_file: ProblemFile
) -> tuple[list[CandidateSolution], list[BadLine]]:
    """Return the solutions of known problems, and the lines that could not be read.

    Raises:
        InputError: the file cannot be read, or has no line.
    """
    solutions: list[CandidateSolution] = []
    bad_lines: list[BadLine] = []
    for number, row in _read_rows(path, bad_lines):
        try:
            name, is_response, text = _read_solution_row(row)
        except BadRow as error:
            bad_lines.append(BadLine(path, number, str(error)))
            continue
        if name in problem_file.problems:
            problem = problem_file.problems[name]
            solutions.append(CandidateSolution(number, name, text, is_response, problem))
        elif name in problem_file.lines:
            place = f"{problem_file.path}:{problem_file.lines[name]}"
            reason = f"id: the problem {_show(name)} cannot be read, see {place}"
            bad_lines.append(BadLine(path, number, reason, LineFault.BAD_PROBLEM))
        else:
            reason = f"id: no problem with id {_show(name)} in {problem_file.path}"
            bad_lines.append(BadLine(path, number, reason, LineFault.NO_PROBLEM))
    if not solutions and not bad_lines:
        raise InputError(f"{path} has no line; expected one solution a line")
    return solutions, bad_lines


def _read_problem_row(row: dict[str, Any], name: str) -> Problem:
    source = row.get("source")
    if not isinstance(source, str):
        raise _wrong("source", source, f"one of {', '.join(sorted(READERS))}")
    _refuse_misspelt_fields(row)
    # Exporters write null where a row has no such field.
    settings = {
        key: read(key, row[key]) for key, read in _SETTINGS.items() if row.get(key) is not None
    }
    is_row = row.get("tests") is None
    # The names that tests may use depend on the prelude.
    prelude = {key: settings.pop(key) for key in ("prelude",) if key in settings}
    try:
        tests = row if is_row else row["tests"]
        problem = read_problem(source, tests, name=name, **prelude)
    except BadRow as error:
        if not is_row and source in READERS:
            raise BadRow(f"tests: {error}") from error
        if not is_row or not isinstance(error, MissingFields):
            raise
        near = difflib.get_close_matches("tests", row, 1, 0.8)
        hint = f"did you mean 'tests' instead of {_show(near[0])}?" if near else "there is no tests"
        raise BadRow(f"{error}; {hint}") from error
    return replace(problem, **settings)


def _refuse_misspelt_fields(row: dict[str, Any]) -> None:
    """Refuse a field that looks like one of ours: its value would be ignored in silence.

    If the row itself holds the tests, its source's fields are there too, such as HumanEval's
    ``test``.
    """
    known = {*_SETTINGS} if row.get("tests") is None else {*_SETTINGS, "tests"}
    for key in row.keys() - known - {"id", "source", "tests", "test"}:
        if meant := difflib.get_close_matches(key, known - row.keys(), 1, 0.8):
            raise BadRow(f"{_show(key)}: no such field; did you mean {meant[0]!r}?")


def _read_solution_row(row: dict[str, Any]) -> tuple[str, bool, str]:
    """Return id, whether the text is a response, and the text."""
    name = _read_id(row)
    found = [key for key in ("program", "response") if row.get(key) is not None]
    if len(found) != 1:
        what = "both program and response" if found else "neither program nor response"
        raise BadRow(f"{what}; expected one of them, as text; found {', '.join(row)}")
    if not isinstance(row[found[0]], str):
        raise _wrong(found[0], row[found[0]], "text")
    return name, found[0] == "response", row[found[0]]


def _read_id(row: dict[str, Any]) -> str:
    """Return the id: text, or an integer, which is the same as its digits as text."""
    if "id" not in row:
        raise BadRow(f"no field id; found {', '.join(map(str, row)) or 'no field'}"[:500])
    value = row["id"]
    is_integer = type(value) is int and abs(value) < 2**63
    if not is_integer and not (isinstance(value, str) and value.strip()):
        raise _wrong("id", value, "text that is not empty, or an integer of at most 64 bits")
    return str(value)


def _read_time(key: str, value: Any) -> float:
    if type(value) not in (int, float) or not MIN_TIME_S <= value <= MAX_TIME_S:
        limits = f"from {MIN_TIME_S:g} to {MAX_TIME_S:.0f}"
        raise _wrong(key, value, f"CPU seconds for each test, a number {limits}")
    return value


def _read_memory(key: str, value: Any) -> int:
    # Exporters with floating-point columns write 4294967296.0.
    is_integer = type(value) is int or (type(value) is float and value.is_integer())
    if not is_integer or not MIN_MEMORY_BYTES <= value <= MAX_MEMORY_BYTES:
        limits = f"from {MIN_MEMORY_BYTES} (64 MiB) to {MAX_MEMORY_BYTES} (16 TiB)"
        raise _wrong(key, value, f"bytes, an integer {limits}")
    return int(value)


def _read_prelude(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(key, value, "Python source as text")
    return value


def _read_entry_point(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise _wrong(key, value, "the name of a function")
    return value


_SETTINGS: dict[str, Callable[[str, Any], Any]] = {
    "time_s": _read_time,
    "memory_bytes": _read_memory,
    "prelude": _read_prelude,
    "entry_point": _read_entry_point,
}


def _wrong(key: str, value: Any, expected: str) -> BadRow:
    return BadRow(f"{key}: found {_show(value)}; expected {expected}")


def _show(value: Any) -> str:
    """Return a value as one short line."""
    if value is None or isinstance(value, bool | list | dict):
        return describe_value(value)
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN_CHARACTERS:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."


def _read_rows(path: Path, bad_lines: list[BadLine]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and objects; append the other lines to ``bad_lines``."""
    check_json_lines(path)
    with path.open("rb") as file:  # bytes are split at newlines only
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except BadRow as error:
                bad_lines.append(BadLine(path, number, str(error)))
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                reason = f"found {_show(row)}; expected a JSON object"
                bad_lines.append(BadLine(path, number, reason))
