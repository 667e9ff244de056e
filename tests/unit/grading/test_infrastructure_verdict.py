"""Failures that are not the program's have the verdict ``infrastructure``."""

import pytest

from tests.helpers.grading_problems import ECHO, make_assert_problem
from verl_pipeline.grading import Comparison, Problem, StdinTest, Verdict, grade
from verl_pipeline.sandbox import Sandbox, SandboxError

pytestmark = pytest.mark.timeout(120)


def test_tests_that_lack_a_module(sandbox):
    problem = make_assert_problem("import not_there\nassert f(1) == 1", "f")
    result = grade(problem, "def f(x):\n    return x", sandbox)
    assert result.verdict is Verdict.INFRASTRUCTURE and "not_there" in result.reason


def test_an_operating_system_error(sandbox, monkeypatch):
    def fail(*_arguments):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("verl_pipeline.sandbox.channels.os.memfd_create", fail)
    result = grade(ECHO, "print(input())", sandbox)
    assert result.verdict is Verdict.INFRASTRUCTURE and "Too many open files" in result.reason


def test_a_checker_that_fails_on_the_expected_output(sandbox):
    comparison = Comparison(
        "checker", checker="def check(input, expected, output):\n    return nothing"
    )
    problem = Problem("root", "test", (StdinTest("1", "1"),), comparison=comparison, time_s=1.0)
    result = grade(problem, "print(1)", sandbox)
    assert result.verdict is Verdict.INFRASTRUCTURE and result.reward is None
    assert "checker of test/root failed" in result.reason


def test_a_failure_of_the_sandbox_after_a_second_attempt(sandbox, monkeypatch):
    failures = iter([SandboxError("planted")])
    original = Sandbox.lend_worker

    def lend_or_fail(self):
        if (failure := next(failures, None)) is not None:
            raise failure
        return original(self)

    monkeypatch.setattr(Sandbox, "lend_worker", lend_or_fail)
    assert grade(ECHO, "print(input())", sandbox).verdict is Verdict.ACCEPTED
    failures = iter([SandboxError("planted")] * 2)
    result = grade(ECHO, "print(input())", sandbox)
    assert (result.verdict, result.reason) == (Verdict.INFRASTRUCTURE, "planted")
    assert result.reward is None
