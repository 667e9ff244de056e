"""Stage ``verify``: official solutions pass all tests, in the sandbox, compared strictly.

Verdicts lie in ``WORK/verdicts.jsonl``, a line a program, by the hash of program, tests and limits.

Invariants:
* A program is graded once for the same tests: a kill loses at most those under way, and another
  source or setting grades nothing anew.
* A failure of the sandbox is no verdict: such a program is graded again at the end, and then by the
  next call.
* What is decided depends on the verdicts and the settings, not on the order in which they came.
"""

from collections.abc import Callable, Container, Iterator
from pathlib import Path

from recipes.deepcoder.data.preparation_config import PrepareConfig, VerifyConfig
from recipes.deepcoder.data.problem_records import Decision, Kept, Record, Records, Removed
from verl_pipeline.grading import Verdict
from verl_pipeline.grading.files import Solution, grade_all, read_verdicts
from verl_pipeline.grading.judge import AnySandbox
from verl_pipeline.grading.problem import syntax_error

# Of a program whose grading failed; the second comes after all others.
TRIES = 2


def chosen(record: Record, most: int) -> list[str]:
    """The solutions that are run: the first that are Python 3."""
    different = dict.fromkeys(record.solutions)
    programs = (
        program for program in different if program.strip() and syntax_error(program) is None
    )
    return [program for program, _ in zip(programs, range(most), strict=False)]


def grade_missing(
    records: Records,
    store: Path,
    config: VerifyConfig,
    sandbox: AnySandbox,
    advance: Callable[[], None],
) -> dict[str, tuple[Verdict, str]]:
    """Grade what has no verdict in ``store`` yet.

    Returns:
        Verdict and reason of each program, by :attr:`Solution.digest`.
    """
    verdicts = {
        row["digest"]: (Verdict(row["verdict"]), row["reason"])
        for row in read_verdicts(store)
        if row["verdict"] != Verdict.INFRASTRUCTURE
    }
    failed: dict[str, tuple[Verdict, str]] = {}
    for _ in range(TRIES):
        failed = {}
        for row in grade_all(_ungraded(records, verdicts, config), sandbox, store):
            verdict = Verdict(row["verdict"])
            (failed if verdict is Verdict.INFRASTRUCTURE else verdicts)[row["digest"]] = (
                verdict,
                row["reason"],
            )
            advance()
        if not failed:
            break
    return verdicts | failed


def verify(
    records: Records, verdicts: dict[str, tuple[Verdict, str]], config: PrepareConfig
) -> Iterator[Decision]:
    """At least one official solution is accepted, and no other gives a wrong answer."""
    for record in records:
        keep = config.sources[record.source].without_solution or config.verify.without_solution
        graded = [verdicts[solution.digest] for solution in _solutions(record, config.verify)]
        yield _decide(record, graded, keep == "keep", config.verify)


def _decide(
    record: Record, graded: list[tuple[Verdict, str]], keep: bool, config: VerifyConfig
) -> Decision:
    if record.multi_answer and config.on_disagreement == "drop":
        return Removed(
            record.id, record.source, "several right answers", "its source has a checker for it"
        )
    if not graded and keep:
        return Kept(record.id, record.source)
    if not graded:
        why = (
            f"{len(record.solutions)} given, none is Python 3"
            if record.solutions
            else "the row has none"
        )
        return Removed(record.id, record.source, "no official solution", why)
    seen = [verdict for verdict, _ in graded]
    if Verdict.INFRASTRUCTURE in seen:
        return Removed(
            record.id,
            record.source,
            "infrastructure",
            graded[seen.index(Verdict.INFRASTRUCTURE)][1],
            passing=True,
        )
    if Verdict.ACCEPTED not in seen:
        detail = "; ".join(
            f"{verdict}: {reason}" if reason else str(verdict) for verdict, reason in graded
        )
        return Removed(record.id, record.source, "no official solution passes", detail)
    disagree = Verdict.WRONG_ANSWER in seen
    if disagree and config.on_disagreement == "drop":
        detail = (
            f"{seen.count(Verdict.ACCEPTED)} accepted, {seen.count(Verdict.WRONG_ANSWER)} with a "
            "wrong answer"
        )
        return Removed(record.id, record.source, "official solutions disagree", detail)
    return Kept(
        record.id,
        record.source,
        {"verified": True, "multi_answer": record.multi_answer or disagree},
    )


def _solutions(record: Record, config: VerifyConfig) -> list[Solution]:
    """What is graded of a record; its place in the file counts for nothing."""
    if record.multi_answer and config.on_disagreement == "drop":
        return []
    programs = chosen(record, config.solutions)
    problem = record.problem() if programs else None
    return [Solution(0, record.id, program, False, problem) for program in programs if problem]


def _ungraded(
    records: Records, verdicts: Container[str], config: VerifyConfig
) -> Iterator[Solution]:
    given: set[str] = set()
    for record in records:
        for solution in _solutions(record, config):
            if (digest := solution.digest) not in verdicts and digest not in given:
                given.add(digest)
                yield solution
