"""Grading that goes on after the first failure: same verdict, other counts."""

import pytest

from verl_pipeline.grading import (
    AssertTest,
    CallTest,
    Comparison,
    Problem,
    StdinTest,
    Verdict,
    grade,
    grade_response,
)
from verl_pipeline.grading.readers import read_kodcode, read_mbpp

pytestmark = [pytest.mark.medium, pytest.mark.timeout(120)]
ECHO = Problem("echo", "t", tuple(StdinTest(c, c) for c in "abcd"), time_s=0.5)
DOUBLE = Problem(
    "double", "t", tuple(CallTest((n,), 2 * n) for n in range(4)), entry_point="f", time_s=0.5
)
ASSERTS = Problem(
    "asserts", "t", tuple(AssertTest(f"assert f({n}) == {2 * n}", ("f",)) for n in range(4))
)
CHECKED = Problem(
    "checked",
    "t",
    tuple(StdinTest(c, c) for c in "abcd"),
    comparison=Comparison("checker", checker="def check(i, e, o):\n    return o.strip() == e"),
)
WRONG_AT_1 = "def f(n):\n    return 0 if n == 1 else 2 * n"


@pytest.mark.parametrize(
    ("problem", "program", "verdict", "failed_test", "passed"),
    [
        (ECHO, "print(input())", Verdict.ACCEPTED, None, 4),
        (ECHO, "print('c')", Verdict.WRONG_ANSWER, 0, 1),
        (ECHO, "c = input()\nwhile c == 'b': pass\nprint(c)", Verdict.TIME_LIMIT, 1, 3),
        (ECHO, "c = input()\nc == 'a' or 1 / 0\nprint(c)", Verdict.RUNTIME_ERROR, 1, 1),
        (ECHO, "c = input()\nif c == 'b': x = ' ' * 2**40\nprint(c)", Verdict.MEMORY_LIMIT, 1, 3),
        (ECHO, "print(", Verdict.COMPILE_ERROR, 0, 0),
        (DOUBLE, "def f(n):\n    return 2 * n", Verdict.ACCEPTED, None, 4),
        (DOUBLE, WRONG_AT_1, Verdict.WRONG_ANSWER, 1, 3),
        (DOUBLE, "def g(): pass", Verdict.RUNTIME_ERROR, 0, 0),
        (ASSERTS, WRONG_AT_1, Verdict.WRONG_ANSWER, 1, 3),
        (ASSERTS, "def f(n):\n    return 1 / n if n < 1 else 2 * n", Verdict.RUNTIME_ERROR, 0, 3),
        (CHECKED, "c = input()\nprint('x' if c == 'b' else c)", Verdict.WRONG_ANSWER, 1, 3),
    ],
)
def test_the_verdict_is_that_of_the_first_failure(
    sandbox, problem, program, verdict, failed_test, passed
):
    stopped = grade(problem, program, sandbox)
    result = grade(problem, program, sandbox, all_tests=True)
    for found in (stopped, result):
        assert (found.verdict, found.failed_test, found.total) == (verdict, failed_test, 4), found
        assert found.reward == float(verdict is Verdict.ACCEPTED)
    assert stopped.reason == result.reason
    assert (result.passed, result.ran) == (passed, 4), result
    ran_before = 4 if failed_test is None else failed_test + 1
    assert (stopped.passed, stopped.ran) == (
        failed_test if failed_test is not None else 4,
        ran_before,
    )


def test_each_test_has_the_limits_that_it_has_otherwise(sandbox):
    result = grade(ECHO, "while True: pass", sandbox, all_tests=True)
    assert (result.verdict, result.passed, result.ran) == (Verdict.TIME_LIMIT, 0, 4)
    assert result.cpu_s >= 4 * 0.5


def test_asserts_of_mbpp_count_one_by_one_and_a_pytest_file_as_one(sandbox):
    asserts = [f"assert double({n}) == {2 * n}" for n in range(3)]
    mbpp = read_mbpp({"test_list": asserts}, name="m")
    program = WRONG_AT_1.replace("def f", "def double")
    result = grade(mbpp, program, sandbox, all_tests=True)
    assert (result.passed, result.ran, result.total) == (2, 3, 3)
    tests = [f"def test_{n}():\n    {line}" for n, line in enumerate(asserts)]
    kodcode = read_kodcode("from solution import double\n" + "\n\n".join(tests), name="k")
    result = grade(kodcode, program, sandbox, all_tests=True)
    assert (result.passed, result.ran, result.total) == (0, 1, 1)
    assert result.verdict is Verdict.WRONG_ANSWER


def test_a_response_without_a_program_has_no_tests_that_ran(sandbox):
    result = grade_response(ECHO, "no program", sandbox, all_tests=True)
    assert (result.verdict, result.passed, result.ran, result.total) == (Verdict.NO_CODE, 0, 0, 4)


def test_a_sandbox_that_fails_after_the_first_failure_leaves_the_verdict(sandbox):
    """The checker fails on the third test's expected output, so that nobody can tell."""
    checker = "def check(i, e, o):\n    assert e != 'c'\n    return o.strip() == e"
    problem = Problem(
        "checked", "t", CHECKED.tests, comparison=Comparison("checker", checker=checker)
    )
    stopped = grade(problem, "print('b')", sandbox)
    result = grade(problem, "print('b')", sandbox, all_tests=True)
    assert stopped.verdict is result.verdict is Verdict.WRONG_ANSWER
    assert result.failed_test == 0 and (result.passed, result.ran, result.total) == (1, 2, 4)
    # Before any failure there is no verdict, as without all tests.
    for all_tests in (False, True):
        result = grade(problem, "print(input())", sandbox, all_tests)
        assert result.verdict is Verdict.INFRASTRUCTURE and result.reward is None
