"""Verdicts of programs with standard input and with calls, in the real sandbox."""

import pytest

from tests.helpers.grading_problems import ADD, ADD_WITH_PRELUDE, ECHO, SUCCESSOR
from verl_pipeline.grading import (
    CallTest,
    Comparison,
    Problem,
    StdinTest,
    Verdict,
    grade,
    grade_response,
)

pytestmark = pytest.mark.timeout(120)
RETURNS_SUM = "def add(a, b):\n    return a + b"
SOLUTION_RETURNS_SUM = "class Solution:\n    def add(self, a, b):\n        return a + b"
SOLUTION_RETURNS_77 = "class Solution:\n    def add(self, a, b):\n        return 77"
SOLUTION_CALLS_PRELUDE = "class Solution:\n    def add(self, a, b):\n        return add(a, b)"
FAILS_ON_C = "x = input()\nprint(x)\nassert x != 'c'"


def check_verdict(sandbox, problem, program, verdict, failed_test, reason):
    result = grade(problem, program, sandbox)
    assert (result.verdict, result.failed_test) == (verdict, failed_test), result
    assert reason in result.reason and result.tier == "namespaces"
    assert result.passed == (len(problem.tests) if verdict is Verdict.ACCEPTED else failed_test)
    assert result.reward == (1.0 if verdict is Verdict.ACCEPTED else 0.0)


@pytest.mark.parametrize(
    ("problem", "program"),
    [
        (ADD, RETURNS_SUM),
        (ADD, SOLUTION_RETURNS_SUM),
        (ADD_WITH_PRELUDE, SOLUTION_CALLS_PRELUDE),
        (ADD_WITH_PRELUDE, RETURNS_SUM),
        (ADD_WITH_PRELUDE, "from operator import add"),
        (ADD_WITH_PRELUDE, "import operator\nadd = operator.add"),
        (ECHO, "print(input())"),
    ],
)
def test_a_right_program_is_accepted(sandbox, problem, program):
    check_verdict(sandbox, problem, program, Verdict.ACCEPTED, None, "")


@pytest.mark.parametrize(
    ("program", "verdict", "failed_test", "reason"),
    [
        ("def add(a, b):\n    return 3", Verdict.WRONG_ANSWER, 1, "differs from the expected"),
        ("def add(a, b):\n    return a + c", Verdict.RUNTIME_ERROR, 0, "NameError"),
        ("def other(): pass", Verdict.RUNTIME_ERROR, 0, "no function 'add'"),
        ("def add(a, b)\n    return 1", Verdict.COMPILE_ERROR, 0, "SyntaxError"),
        (
            "def add(a, b):\n    return object()",
            Verdict.WRONG_ANSWER,
            0,
            "a value of type builtins.object",
        ),
        ("def add(a, b):\n    while True: pass", Verdict.TIME_LIMIT, 0, "CPU time"),
        ("import sys\ndef add(a, b):\n    sys.exit(0)", Verdict.RUNTIME_ERROR, 0, ""),
        (
            "import os\ndef add(a, b):\n    os._exit(0)",
            Verdict.WRONG_ANSWER,
            0,
            "cannot be compared",
        ),
    ],
)
def test_a_wrong_function_fails_with_its_verdict(sandbox, program, verdict, failed_test, reason):
    check_verdict(sandbox, ADD, program, verdict, failed_test, reason)


@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("def nothing(): pass", Verdict.RUNTIME_ERROR, "no function 'add'"),
        ("x = add(1, 2)", Verdict.RUNTIME_ERROR, "no function 'add'"),
        (SOLUTION_RETURNS_77, Verdict.WRONG_ANSWER, ""),
    ],
)
def test_a_function_of_the_prelude_is_not_the_programs(sandbox, program, verdict, reason):
    check_verdict(sandbox, ADD_WITH_PRELUDE, program, verdict, 0, reason)


@pytest.mark.parametrize(
    ("program", "verdict", "failed_test", "reason"),
    [
        ("print('a')", Verdict.WRONG_ANSWER, 1, "differs from the expected"),
        (FAILS_ON_C, Verdict.RUNTIME_ERROR, 2, "AssertionError"),
        ("x = [0] * 10**12", Verdict.MEMORY_LIMIT, 0, "memory"),
    ],
)
def test_a_wrong_script_fails_with_its_verdict(sandbox, program, verdict, failed_test, reason):
    check_verdict(sandbox, ECHO, program, verdict, failed_test, reason)


def test_the_expected_output_is_in_no_reason(sandbox):
    problem = Problem("secret", "test", (StdinTest("", "correct horse battery"),), time_s=1.0)
    assert "horse" not in grade(problem, "print(1)", sandbox).reason


def test_only_the_answer_of_a_response_is_graded(sandbox):
    fence = "```python\nprint(input())\n```"
    assert (
        grade_response(ECHO, f"<think>{fence}</think> nothing", sandbox).verdict is Verdict.NO_CODE
    )
    assert grade_response(ECHO, f"<think>no</think>\n{fence}", sandbox).verdict is Verdict.ACCEPTED


def test_a_declared_checker_decides(sandbox):
    checker = "def check(input, expected, output):\n    return int(output) ** 2 == int(input)"
    tests = (StdinTest("49\n", "7"), StdinTest("25\n", "5"))
    problem = Problem(
        "root", "test", tests, comparison=Comparison("checker", checker=checker), time_s=1.0
    )
    assert grade(problem, "print(-round(int(input()) ** 0.5))", sandbox).verdict is Verdict.ACCEPTED
    assert grade(problem, "print(7)", sandbox).verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        ("4", Verdict.ACCEPTED),
        ("[4]", Verdict.ACCEPTED),
        ("[[4]]", Verdict.WRONG_ANSWER),
        ("[4, 4]", Verdict.WRONG_ANSWER),
    ],
)
def test_a_list_of_one_may_be_the_value_or_a_box_around_it(sandbox, returned, verdict):
    boxed = Problem("boxed", "test", (CallTest((2,), 4, boxed=True),), entry_point="f", time_s=1.0)
    assert grade(boxed, f"def f(x):\n    return {returned}", sandbox).verdict is verdict


SLOW_TOGETHER = """
import time
def f(n):
    t = time.process_time()
    while time.process_time() < t + 0.4:
        pass
    return n + 1
"""
RIGHT_IN_OWN_PROCESSES = """
seen = []
def f(n):
    seen.append(n)
    return n + len(seen)
"""
RIGHT_IN_ONE_PROCESS = """
calls = 0
def f(n):
    global calls
    calls += 1
    return calls
"""


@pytest.mark.parametrize(
    ("program", "verdict", "failed_test"),
    [
        ("def f(n):\n    return n + 1", Verdict.ACCEPTED, None),
        ("def f(n):\n    return n + (n != 3)", Verdict.WRONG_ANSWER, 3),
        ("def f(n):\n    return 1 // (n != 3) + n", Verdict.RUNTIME_ERROR, 3),
        (SLOW_TOGETHER, Verdict.ACCEPTED, None),
        (RIGHT_IN_OWN_PROCESSES, Verdict.ACCEPTED, None),
        (RIGHT_IN_ONE_PROCESS, Verdict.ACCEPTED, None),
        (
            "import os\nos.write(3, b'[1]\\n[2]\\n[3]\\n[4]\\n[5]\\n[6]\\n')\nos._exit(0)",
            Verdict.WRONG_ANSWER,
            0,
        ),
        ("import os\nos.write(3, b'[1]\\n')\nos._exit(0)", Verdict.WRONG_ANSWER, 1),
    ],
)
def test_calls_run_in_one_process_and_else_one_by_one(sandbox, program, verdict, failed_test):
    result = grade(SUCCESSOR, program, sandbox)
    assert (result.verdict, result.failed_test) == (verdict, failed_test), result
    assert result.passed == (5 if failed_test is None else failed_test)
