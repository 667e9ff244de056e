"""The possible results of grading a program.

Invariants:
* Exactly one verdict gives a reward of 1 (``accepted``), and exactly one gives no reward at all
  (``infrastructure``).
* Whatever a program does inside its own jail is the program's failure; ``infrastructure`` means
  that the grader or the sandbox failed.
"""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The result of a grading, or of one test."""

    ACCEPTED = "accepted"
    WRONG_ANSWER = "wrong_answer"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    RUNTIME_ERROR = "runtime_error"
    NO_CODE = "no_code"
    COMPILE_ERROR = "compile_error"
    INFRASTRUCTURE = "infrastructure"


# A verdict and its reason: one line for people, empty if the program is accepted.
VerdictAndReason = tuple[Verdict, str]


@dataclass(frozen=True)
class GradingResult:
    """A graded program.

    Attributes:
        verdict: of the first test that did not pass, or ``accepted``.
        reason: one line for people; never contains an expected output.
        passed, ran, total: number of tests that passed, of tests that ran, and of all selected
            tests. Grading stops at the first test that does not pass, unless all tests were asked
            for; only if all ran is ``passed / total`` the share of tests that pass.
        failed_test: index of that test among the selected ones, or None.
        cpu_s, wall_s: sums over all runs, in seconds.
        memory_bytes: largest resident memory of a run.
        tier: isolation tier that the program ran in; None if nothing ran.
    """

    verdict: Verdict
    reason: str = ""
    passed: int = 0
    ran: int = 0
    total: int = 0
    failed_test: int | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    tier: str | None = None

    @property
    def reward(self) -> float | None:
        """1.0 or 0.0; None for an infrastructure failure."""
        if self.verdict is Verdict.INFRASTRUCTURE:
            return None
        return float(self.verdict is Verdict.ACCEPTED)
