"""What grading a program can end in.

Invariants:
* Exactly one verdict is a reward of 1 (``accepted``), exactly one is no reward at all
  (``infrastructure``).
* Whatever a program does inside its own jail is its own failure; ``infrastructure`` is a failure of
  ours.
"""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The end of a grading, or of one test."""

    ACCEPTED = "accepted"
    WRONG_ANSWER = "wrong_answer"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    RUNTIME_ERROR = "runtime_error"
    NO_CODE = "no_code"
    COMPILE_ERROR = "compile_error"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Result:
    """A graded program.

    Attributes:
        verdict: of the first test that was not accepted, or ``accepted``.
        reason: one line for people; never an expected output.
        passed, total: tests accepted, and tests asked for; grading stops at the first that is not
            accepted.
        failed_test: index of that test among those asked for, or None.
        cpu_s, wall_s: of all runs together, in seconds.
        memory_bytes: largest resident memory of a run.
        tier: isolation the program ran in; None if nothing ran.
    """

    verdict: Verdict
    reason: str = ""
    passed: int = 0
    total: int = 0
    failed_test: int | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    tier: str | None = None

    @property
    def reward(self) -> float | None:
        """1.0, 0.0, or None where there is none."""
        if self.verdict is Verdict.INFRASTRUCTURE:
            return None
        return float(self.verdict is Verdict.ACCEPTED)
