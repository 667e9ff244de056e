"""Test selection keeps what belongs to the problem."""

from verl_pipeline.grading.problem import CallTest, Problem
from verl_pipeline.grading.select import longest_inputs, sample

PROBLEM = Problem(
    "p",
    "taco",
    tuple(CallTest(("x" * (index % 7),), index) for index in range(40)),
    entry_point="f",
    public=3,
)


def test_the_longest_inputs_in_their_own_order_with_the_functions_name():
    chosen = longest_inputs(PROBLEM, 5)
    assert [test.output for test in chosen.tests] == [6, 13, 20, 27, 34]
    assert chosen.entry_point == "f" and chosen.public == 0
    assert longest_inputs(PROBLEM, 100) == PROBLEM


def test_a_sample_depends_on_seed_and_problem_only():
    assert sample(PROBLEM, 5, seed=1) == sample(PROBLEM, 5, seed=1) != sample(PROBLEM, 5, seed=2)
    assert sample(PROBLEM, 100, seed=1) == PROBLEM
