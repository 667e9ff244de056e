"""Stage ``verify``: official solutions must pass all tests, in the sandbox, compared strictly.

Verdicts are stored in ``WORK/verdicts.jsonl``, one line per program, under the hash of program,
tests and limits.

Invariants:
* A program is graded once for the same tests. A kill loses only the gradings in progress, and
  another data source or setting does not repeat any.
* A failure of the sandbox is not a verdict: the program is graded again at the end of the run, and
  after that by the next call.
* The decisions depend on the verdicts and the settings, not on the order of the verdicts.
"""

from collections.abc import Callable, Container, Iterator
from contextlib import closing
from pathlib import Path

from verl_pipeline.grading import Verdict
from verl_pipeline.grading.grading_files import (
    VERDICTS,
    CandidateSolution,
    grade_solutions,
    select_usable_verdicts,
)
from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.grading.program_grader import AnySandbox
from verl_pipeline.outputs.files import JsonLinesFile
from verl_pipeline.recipes.deepcoder.data.preparation_config import PrepareConfig, VerifyConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    KeptRow,
    ProblemRecord,
    RecordSet,
    RemovedRow,
)

# How often a call tries to grade a program; the second attempt comes after all other programs.
MAX_ATTEMPTS = 2

# Verdict and reason of a program.
GradedProgram = tuple[Verdict, str]


def select_solutions(record: ProblemRecord, limit: int) -> list[str]:
    """Return the first ``limit`` distinct solutions that are Python 3."""
    distinct = dict.fromkeys(record.solutions)
    programs = (
        program for program in distinct if program.strip() and find_syntax_error(program) is None
    )
    return [program for program, _ in zip(programs, range(limit), strict=False)]


def grade_missing_solutions(
    records: RecordSet,
    store: Path,
    config: VerifyConfig,
    sandbox: AnySandbox,
    advance: Callable[[], None],
) -> dict[str, GradedProgram]:
    """Grade the solutions without a verdict in ``store``.

    Args:
        records: the problems with their solutions.
        store: file of verdicts.
        config: the settings of the stage.
        sandbox: where programs run.
        advance: called once per grading.

    Returns:
        Verdict and reason of each program, by :attr:`CandidateSolution.digest`.
    """
    failures: dict[str, GradedProgram] = {}
    with closing(JsonLinesFile(store, VERDICTS)) as file:
        usable = select_usable_verdicts(file.read_rows(), all_tests=False)
        verdicts = {
            digest: (Verdict(row["verdict"]), row.get("reason", ""))
            for digest, row in usable.items()
        }
        for _ in range(MAX_ATTEMPTS):
            failures = {}
            for row in grade_solutions(_list_ungraded(records, verdicts, config), sandbox, file):
                verdict = Verdict(row["verdict"])
                target = failures if verdict is Verdict.INFRASTRUCTURE else verdicts
                target[row["digest"]] = (verdict, row["reason"])
                advance()
            if not failures:
                break
    return verdicts | failures


def verify_records(
    records: RecordSet, verdicts: dict[str, GradedProgram], config: PrepareConfig
) -> Iterator[Decision]:
    """Keep problems with an accepted official solution, and no other with a wrong answer."""
    for record in records:
        policy = config.sources[record.source].without_solution or config.verify.without_solution
        graded = [verdicts[solution.digest] for solution in _list_solutions(record, config.verify)]
        yield _decide_record(record, graded, policy == "keep", config.verify)


def _decide_record(
    record: ProblemRecord,
    graded: list[GradedProgram],
    keep_unverified: bool,
    config: VerifyConfig,
) -> Decision:
    if record.multi_answer and config.on_disagreement == "drop":
        detail = "the source has a checker"
        return RemovedRow(record.id, record.source, "several right answers", detail)
    if not graded and keep_unverified:
        return KeptRow(record.id, record.source)
    if not graded:
        detail = (
            f"none of its {len(record.solutions)} solutions is Python 3"
            if record.solutions
            else "the row has none"
        )
        return RemovedRow(record.id, record.source, "no official solution", detail)
    verdicts = [verdict for verdict, _reason in graded]
    if Verdict.INFRASTRUCTURE in verdicts:
        reason = graded[verdicts.index(Verdict.INFRASTRUCTURE)][1]
        return RemovedRow(record.id, record.source, "infrastructure", reason, is_transient=True)
    if Verdict.ACCEPTED not in verdicts:
        detail = "; ".join(
            f"{verdict}: {reason}" if reason else str(verdict) for verdict, reason in graded
        )
        return RemovedRow(record.id, record.source, "no official solution passes", detail)
    has_disagreement = Verdict.WRONG_ANSWER in verdicts
    if has_disagreement and config.on_disagreement == "drop":
        detail = (
            f"{verdicts.count(Verdict.ACCEPTED)} accepted, {verdicts.count(Verdict.WRONG_ANSWER)} "
            "with a wrong answer"
        )
        return RemovedRow(record.id, record.source, "official solutions disagree", detail)
    fields = {"verified": True, "multi_answer": record.multi_answer or has_disagreement}
    return KeptRow(record.id, record.source, fields)


def _list_solutions(record: ProblemRecord, config: VerifyConfig) -> list[CandidateSolution]:
    """Return the solutions of a record that are graded; their line number (0) is never used."""
    if record.multi_answer and config.on_disagreement == "drop":
        return []
    programs = select_solutions(record, config.solutions)
    problem = record.read_problem() if programs else None
    return [
        CandidateSolution(0, record.id, program, False, problem) for program in programs if problem
    ]


def _list_ungraded(
    records: RecordSet, verdicts: Container[str], config: VerifyConfig
) -> Iterator[CandidateSolution]:
    """Yield each solution without a verdict once."""
    yielded_digests: set[str] = set()
    for record in records:
        for solution in _list_solutions(record, config):
            digest = solution.digest
            if digest not in verdicts and digest not in yielded_digests:
                yielded_digests.add(digest)
                yield solution
