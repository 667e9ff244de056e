"""Problems, tests and verdicts; :func:`grade` runs a program and compares its output outside."""

from verl_pipeline.grading.problem import (
    AssertTest,
    CallTest,
    Comparison,
    Problem,
    PytestTest,
    StdinTest,
)
from verl_pipeline.grading.program_grader import grade, grade_response
from verl_pipeline.grading.verdict import GradingResult, Verdict

__all__ = [
    "AssertTest",
    "CallTest",
    "Comparison",
    "GradingResult",
    "Problem",
    "PytestTest",
    "StdinTest",
    "Verdict",
    "grade",
    "grade_response",
]
