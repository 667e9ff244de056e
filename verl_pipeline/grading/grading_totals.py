"""What became of every line that ``verl-pipeline grade`` was given, counted.

Invariant: counts of solutions add up to their lines, and each share is of all of these lines.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from verl_pipeline.grading.grading_files import has_run_all_tests
from verl_pipeline.grading.grading_inputs import BadLine, ProblemFile
from verl_pipeline.grading.verdict import Verdict
from verl_pipeline.number_formats import format_percent


@dataclass(frozen=True)
class GradingTotals:
    """Counts of lines.

    Attributes:
        accepted: solutions with that verdict.
        refused: solutions with each other verdict.
        not_graded: solutions without a verdict, by cause.
        problems: lines of problems.
        bad_problems: those that could not be read.
        tests_passed, tests_total: of the programs of which all tests ran; None if only some were
            asked for.
    """

    accepted: int
    refused: Mapping[str, int]
    not_graded: Mapping[str, int]
    problems: int
    bad_problems: int
    tests_passed: int | None = None
    tests_total: int | None = None

    @property
    def solutions(self) -> int:
        """Lines of solutions."""
        return self.accepted + sum(self.refused.values()) + sum(self.not_graded.values())

    @property
    def is_complete(self) -> bool:
        """Whether every line of both files could be read, and every program graded."""
        return not self.not_graded and not self.bad_problems

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        counts = {
            "solutions": self.solutions,
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "not_graded": dict(self.not_graded),
            "problems": self.problems,
            "bad_problems": self.bad_problems,
        }
        if self.tests_total is not None:
            counts |= {"tests_passed": self.tests_passed, "tests": self.tests_total}
        return counts


def count_lines(
    rows: Sequence[Mapping[str, Any]],
    bad_solutions: Iterable[BadLine],
    problem_file: ProblemFile,
    all_tests: bool,
) -> GradingTotals:
    """Count verdicts and bad lines; ``all_tests`` says whether every test was asked for."""
    verdicts = Counter(str(row["verdict"]) for row in rows)
    not_graded = Counter(str(line.fault) for line in bad_solutions)
    if failed := verdicts.pop(Verdict.INFRASTRUCTURE, 0):
        not_graded[str(Verdict.INFRASTRUCTURE)] = failed
    accepted = verdicts.pop(Verdict.ACCEPTED, 0)
    complete = [row for row in rows if has_run_all_tests(row)] if all_tests else []
    return GradingTotals(
        accepted,
        dict(verdicts.most_common()),
        dict(not_graded.most_common()),
        len(problem_file.problems) + len(problem_file.bad_lines),
        len(problem_file.bad_lines),
        sum(row["passed"] for row in complete) if all_tests else None,
        sum(row["total"] for row in complete) if all_tests else None,
    )


def make_totals_table(totals: GradingTotals) -> Table:
    """Return one table of all lines of solutions, with what else there is to say below it."""
    table = Table(
        *("result", "solutions", "share"),
        caption=_describe_rest(totals),
        caption_justify="left",
    )
    counts = {
        "accepted": totals.accepted,
        **totals.refused,
        **{f"not graded: {cause}": count for cause, count in totals.not_graded.items()},
    }
    for result, count in counts.items():
        table.add_row(result, str(count), _format_share(count, totals.solutions))
    table.add_section()
    table.add_row("all", str(totals.solutions), _format_share(totals.solutions, totals.solutions))
    return table


def _describe_rest(totals: GradingTotals) -> str | None:
    parts = []
    if totals.bad_problems:
        parts.append(f"{totals.bad_problems} of {totals.problems} problem lines are bad")
    if totals.tests_total:
        share = _format_share(totals.tests_passed or 0, totals.tests_total)
        parts.append(
            f"of all tests, {totals.tests_passed} of {totals.tests_total} passed ({share})"
        )
    return "\n".join(parts) or None


def _format_share(count: int, total: int) -> str:
    return format_percent(count / max(1, total))
