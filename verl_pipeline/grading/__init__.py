"""Problems, tests and verdicts; :func:`grade` runs a program in a sandbox and compares outside of
it.
"""

from verl_pipeline.grading.judge import grade, grade_response
from verl_pipeline.grading.problem import AssertTest, CallTest, Comparison, Problem, StdinTest
from verl_pipeline.grading.verdict import Result, Verdict

__all__ = [
    "AssertTest",
    "CallTest",
    "Comparison",
    "Problem",
    "Result",
    "StdinTest",
    "Verdict",
    "grade",
    "grade_response",
]
