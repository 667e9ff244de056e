"""Grades the solutions of files, and keeps their verdicts as JSONL; :mod:`.grading_inputs` reads.

Invariants:
* Each verdict is written at once, with the line number of its solution; a second call grades only
  the solutions that have no verdict yet.
* A stored verdict is used only if its digest is that of the solution and its tests, and if as many
  tests ran as are asked for; rows of other versions are graded again.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any

from verl_pipeline.grading.problem import Problem, write_repr
from verl_pipeline.grading.program_grader import AnySandbox, grade, grade_response
from verl_pipeline.grading.verdict import GradingResult, Verdict
from verl_pipeline.outputs.files import JsonLinesFile, RecordKind

VERDICTS = RecordKind("verdicts of verl-pipeline grade", ("id", "line", "digest", "verdict"))
# As the text that files hold.
_FINAL_VERDICTS = [str(verdict) for verdict in Verdict if verdict is not Verdict.INFRASTRUCTURE]


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


def select_usable_verdicts(
    rows: Iterable[Mapping[str, Any]], all_tests: bool
) -> dict[str, Mapping[str, Any]]:
    """Return the stored verdicts that need no second grading, by digest.

    Args:
        all_tests: whether every test must have run.
    """
    return {
        row["digest"]: row
        for row in rows
        if isinstance(row.get("digest"), str)
        and row.get("verdict") in _FINAL_VERDICTS
        and (not all_tests or has_run_all_tests(row))
    }


def has_run_all_tests(row: Mapping[str, Any]) -> bool:
    """Whether ``passed`` of a verdict counts all tests, not only those before the first failure."""
    if not all(isinstance(row.get(key), int) for key in ("passed", "total")):
        return False
    is_decided = row["verdict"] in (Verdict.ACCEPTED, Verdict.NO_CODE)
    return is_decided or row.get("ran") == row["total"]


def grade_solutions(
    solutions: Iterable[CandidateSolution],
    sandbox: AnySandbox,
    output: JsonLinesFile,
    all_tests: bool = False,
) -> Iterator[dict[str, Any]]:
    """Grade in parallel; append each verdict to ``output`` and yield it as soon as it is known.

    Args:
        all_tests: see :func:`~verl_pipeline.grading.program_grader.grade`.
    """
    pending: dict[Future[GradingResult], CandidateSolution] = {}
    remaining = iter(solutions)
    with ThreadPoolExecutor(sandbox.workers) as threads:
        while True:
            # Never more than the sandbox grades at a time: an interrupt then waits for these only.
            while (
                len(pending) < sandbox.workers and (solution := next(remaining, None)) is not None
            ):
                grader = grade_response if solution.is_response else grade
                future = threads.submit(grader, solution.problem, solution.text, sandbox, all_tests)
                pending[future] = solution
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
