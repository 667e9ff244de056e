"""``verl-pipeline grade``: problems and solutions as JSONL in, verdicts as JSONL out.

A problem: ``{"id": ..., "source": "taco", "tests": ...}`` and, where they differ from the source's,
``time_s``, ``memory_bytes``, ``prelude``, ``entry_point``; ``tests`` is what the source publishes
(:mod:`.readers`), or the whole row. A solution: ``{"id": ..., "program": "..."}`` or ``{"id": ...,
"response": "..."}``; several may have one id.

Invariants:
* A line that cannot be read is reported with file and number; all others are graded.
* A verdict is written as soon as it is known, with the number of its solution's line; a second call
  grades what is missing.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from verl_pipeline.grading.judge import AnySandbox, grade, grade_response
from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.readers import READERS, BadRow
from verl_pipeline.grading.verdict import Result

_SETTINGS = ("time_s", "memory_bytes", "prelude", "entry_point")


@dataclass(frozen=True)
class Solution:
    """One line of the solutions' file."""

    line: int
    id: str
    text: str
    is_response: bool
    problem: Problem

    @property
    def digest(self) -> str:
        """Of what is graded: a verdict of before counts for the same text and the same tests only."""
        whole = f"{self.id}\0{self.problem!r}\0{self.is_response}\0{self.text}"
        return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class BadLine:
    """A line that could not be read."""

    path: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


def read_problems(path: Path) -> tuple[dict[str, Problem], list[BadLine]]:
    """Problems by id, and the lines that are none."""
    problems: dict[str, Problem] = {}
    bad: list[BadLine] = []
    for number, row in _rows(path, bad):
        try:
            name, source = str(row["id"]), row["source"]
            if source not in READERS:
                raise BadRow(f"source {source!r}; there are {', '.join(sorted(READERS))}")
            if name in problems:
                raise BadRow(f"a second problem with id {name!r}")
            settings = {key: row[key] for key in _SETTINGS if key in row}
            problem = READERS[source](row.get("tests", row), name=name, source=source)
            problems[name] = replace(problem, **settings)
        except KeyError as error:
            bad.append(BadLine(path, number, f"no field {error}"))
        except (ValueError, TypeError, AttributeError) as error:
            bad.append(BadLine(path, number, str(error)))
    return problems, bad


def read_solutions(
    path: Path, problems: dict[str, Problem]
) -> tuple[list[Solution], list[BadLine]]:
    """Solutions of known problems, and the lines that are none."""
    found: list[Solution] = []
    bad: list[BadLine] = []
    for number, row in _rows(path, bad):
        fields = [field for field in ("program", "response") if isinstance(row.get(field), str)]
        if "id" not in row or len(fields) != 1:
            bad.append(
                BadLine(path, number, "an id and one of program and response, as text, are needed")
            )
        elif str(row["id"]) not in problems:
            bad.append(BadLine(path, number, f"no problem with id {str(row['id'])!r}"))
        else:
            problem = problems[str(row["id"])]
            found.append(
                Solution(number, str(row["id"]), row[fields[0]], fields[0] == "response", problem)
            )
    return found, bad


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Verdicts of an earlier call; a last line that was cut off is left aside."""
    return [row for _number, row in _rows(path, [])] if path.is_file() else []


def grade_all(
    solutions: Iterable[Solution], sandbox: AnySandbox, output: Path
) -> Iterator[dict[str, Any]]:
    """Grade in parallel; append each verdict to ``output`` and yield it, in the order they are
    known.
    """
    pending: dict[Future[Result], Solution] = {}
    todo = iter(solutions)
    if output.is_file():
        os.truncate(output, output.read_bytes().rfind(b"\n") + 1)  # a line that was cut off
    with output.open("a", encoding="utf-8") as file, ThreadPoolExecutor(sandbox.workers) as threads:
        while True:
            # No more than are graded at a time: a stop does not have to wait for what is queued.
            while len(pending) < sandbox.workers and (solution := next(todo, None)) is not None:
                judge = grade_response if solution.is_response else grade
                pending[threads.submit(judge, solution.problem, solution.text, sandbox)] = solution
            if not pending:
                return
            done, _running = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                row = _row(pending.pop(future), future.result())
                file.write(json.dumps(row) + "\n")
                file.flush()
                yield row


def _row(solution: Solution, result: Result) -> dict[str, Any]:
    return {
        "id": solution.id,
        "line": solution.line,
        "digest": solution.digest,
        "reward": result.reward,
        **asdict(result),
    }


def _rows(path: Path, bad: list[BadLine]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                bad.append(BadLine(path, number, f"no JSON: {error}"))
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                bad.append(
                    BadLine(path, number, f"an object is expected, not {type(row).__name__}")
                )
