"""A selection of tests keeps all other fields of the problem."""

from verl_pipeline.grading.problem import CallTest, Problem
from verl_pipeline.grading.selection import sample_tests, select_longest_inputs

PROBLEM = Problem(
    "p",
    "taco",
    tuple(CallTest(("x" * (index % 7),), index) for index in range(40)),
    entry_point="f",
    public=3,
)


def test_the_longest_inputs_keep_their_order_and_the_entry_point():
    chosen = select_longest_inputs(PROBLEM, 5)
    assert [test.output for test in chosen.tests] == [6, 13, 20, 27, 34]
    assert chosen.entry_point == "f" and chosen.public == 0
    assert select_longest_inputs(PROBLEM, 100) == PROBLEM


def test_a_sample_depends_on_seed_and_problem_only():
    assert (
        sample_tests(PROBLEM, 5, seed=1)
        == sample_tests(PROBLEM, 5, seed=1)
        != sample_tests(PROBLEM, 5, seed=2)
    )
    assert sample_tests(PROBLEM, 100, seed=1) == PROBLEM
