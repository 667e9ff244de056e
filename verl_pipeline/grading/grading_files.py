"""``verl-pipeline grade``: reads problems and solutions as JSONL, writes verdicts as JSONL.

A problem is ``{"id": ..., "source": "taco", "tests": ...}``, with ``time_s``, ``memory_bytes``,
``prelude`` and ``entry_point`` where they differ from the source's. ``tests`` is what the source
publishes (:mod:`.readers`); without it, the whole row is read. A solution is
``{"id": ..., "program": "..."}`` or ``{"id": ..., "response": "..."}``; several solutions may have
the same id.

Invariants:
* A line that cannot be read is reported with its file and number; all other lines are graded.
* Each verdict is written at once, with the line number of its solution; a second call grades only
  the solutions that have no verdict yet.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from verl_pipeline.grading.problem import Problem, write_repr
from verl_pipeline.grading.program_grader import AnySandbox, grade, grade_response
from verl_pipeline.grading.readers import BadRow, read_problem
from verl_pipeline.grading.readers.row_values import parse_json
from verl_pipeline.grading.verdict import GradingResult
from verl_pipeline.outputs.files import JsonLinesFile, RecordKind

VERDICTS = RecordKind("verdicts of verl-pipeline grade", ("id", "line", "digest", "verdict"))
_SETTINGS = ("time_s", "memory_bytes", "prelude", "entry_point")


@dataclass(frozen=True)
class CandidateSolution:
    """A program, or a response that contains one, with its problem.

    Attributes:
        line: number in the file of solutions, from 1; 0 without a file.
        id: of the problem.
        text: the program or the response.
        is_response: whether the program has to be extracted from ``text``.
    """

    line: int
    id: str
    text: str
    is_response: bool
    problem: Problem

    @property
    def digest(self) -> str:
        """Identifies the text and its tests: a stored verdict is valid for equal digests only."""
        content = f"{self.id}\0{write_repr(self.problem)}\0{self.is_response}\0{self.text}"
        return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class BadLine:
    """A line that could not be read."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def read_problems(path: Path) -> tuple[dict[str, Problem], list[BadLine]]:
    """Return the problems by id, and the lines that could not be read."""
    problems: dict[str, Problem] = {}
    bad_lines: list[BadLine] = []
    for number, row in _read_rows(path, bad_lines):
        try:
            name, source = str(row["id"]), row["source"]
            if name in problems:
                raise BadRow(f"a second problem with id {name!r}")
            # Exporters write null where a row has no such field.
            settings = {key: row[key] for key in _SETTINGS if row.get(key) is not None}
            tests = row if row.get("tests") is None else row["tests"]
            # The names that tests may use depend on the prelude.
            prelude = {key: settings.pop(key) for key in ("prelude",) if key in settings}
            problem = read_problem(source, tests, name=name, **prelude)
            problems[name] = replace(problem, **settings)
        except KeyError as error:
            bad_lines.append(BadLine(path, number, f"no field {error}"))
        except (ValueError, TypeError, AttributeError) as error:
            bad_lines.append(BadLine(path, number, str(error)))
    return problems, bad_lines


def read_solutions(
    path: Path, problems: dict[str, Problem]
) -> tuple[list[CandidateSolution], list[BadLine]]:
    """Return the solutions of known problems, and the lines that could not be read."""
    solutions: list[CandidateSolution] = []
    bad_lines: list[BadLine] = []
    for number, row in _read_rows(path, bad_lines):
        fields = [field for field in ("program", "response") if isinstance(row.get(field), str)]
        if "id" not in row or len(fields) != 1:
            reason = "a solution needs an id and either a program or a response, as text"
            bad_lines.append(BadLine(path, number, reason))
        elif str(row["id"]) not in problems:
            bad_lines.append(BadLine(path, number, f"no problem with id {str(row['id'])!r}"))
        else:
            name, field = str(row["id"]), fields[0]
            solutions.append(
                CandidateSolution(number, name, row[field], field == "response", problems[name])
            )
    return solutions, bad_lines


def grade_solutions(
    solutions: Iterable[CandidateSolution], sandbox: AnySandbox, output: JsonLinesFile
) -> Iterator[dict[str, Any]]:
    """Grade in parallel; append each verdict to ``output`` and yield it as soon as it is known."""
    pending: dict[Future[GradingResult], CandidateSolution] = {}
    remaining = iter(solutions)
    with ThreadPoolExecutor(sandbox.workers) as threads:
        while True:
            # Never more than the sandbox grades at a time: an interrupt then waits for these only.
            while (
                len(pending) < sandbox.workers and (solution := next(remaining, None)) is not None
            ):
                grader = grade_response if solution.is_response else grade
                pending[threads.submit(grader, solution.problem, solution.text, sandbox)] = solution
            if not pending:
                return
            done, _running = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                row = _make_verdict_row(pending.pop(future), future.result())
                output.append_row(row)
                yield row


def _make_verdict_row(solution: CandidateSolution, result: GradingResult) -> dict[str, Any]:
    return {
        "id": solution.id,
        "line": solution.line,
        "digest": solution.digest,
        "reward": result.reward,
        **asdict(result),
    }


def _read_rows(path: Path, bad_lines: list[BadLine]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and objects; append the other lines to ``bad_lines``."""
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
                reason = f"expected a JSON object, found {type(row).__name__}"
                bad_lines.append(BadLine(path, number, reason))
