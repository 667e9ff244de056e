"""Small problems that tests of the grader share."""

from dataclasses import replace

from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

# Calls of add(a, b).
ADD = Problem(
    "add", "test", (CallTest((1, 2), 3), CallTest((5, 5), 10)), entry_point="add", time_s=1.0
)
# Its prelude defines an `add` (``from operator import *``), which is not the program's.
ADD_WITH_PRELUDE = replace(ADD, prelude=IMPORTS_PRELUDE)
# Prints its input.
ECHO = Problem(
    "echo",
    "test",
    (StdinTest("a\n", "a\n"), StdinTest("b\n", "b\n"), StdinTest("c\n", "c\n")),
    time_s=1.0,
)
# Five calls of f(n) = n + 1.
SUCCESSOR = Problem(
    "successor", "test", tuple(CallTest((n,), n + 1) for n in range(5)), entry_point="f", time_s=2.0
)


def make_assert_problem(source: str, *names: str, prelude: str = "") -> Problem:
    """Return a problem of one assert test that calls the program's ``names``."""
    return Problem("asserts", "test", (AssertTest(source, names),), time_s=1.0, prelude=prelude)
