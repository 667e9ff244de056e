"""Outputs that are made to burden the judge cost it little, and are wrong answers."""

import resource

import pytest

from tests.helpers.grading_problems import ADD, ECHO, SUCCESSOR
from verl_pipeline.grading import CallTest, Comparison, Problem, StdinTest, Verdict, grade

pytestmark = pytest.mark.timeout(120)
SENDS_COLLIDING_MEMBERS = """
import json, os
parts = [['s', 10**5]] + [['i', hex(n * (2**61 - 1))] for n in range(10**5)]
os.write(3, json.dumps(parts).encode())
os._exit(0)
"""
SENDS_DEEP_MEMBERS = """
import json, os
os.write(3, json.dumps([['s', 1]] + [['t', 1]] * 900_000 + [['t', 0]]).encode())
os._exit(0)
"""


def test_members_of_equal_hashes_are_refused(sandbox):
    result = grade(ADD, SENDS_COLLIDING_MEMBERS, sandbox)
    assert result.verdict is Verdict.WRONG_ANSWER and "equal hashes" in result.reason
    pairs = Problem(
        "pairs", "test", (CallTest((), {1: "a", 2: {3, 4}}),), entry_point="pairs", time_s=1.0
    )
    program = "def pairs():\n    return {2: {4, 3}, 1: 'a'}"
    assert grade(pairs, program, sandbox).verdict is Verdict.ACCEPTED


def test_members_nested_too_deep_are_refused(sandbox):
    result = grade(ADD, f"def add(a, b):\n    pass\n{SENDS_DEEP_MEMBERS}", sandbox)
    assert result.verdict is Verdict.WRONG_ANSWER and "levels deep" in result.reason


@pytest.mark.parametrize("program", ["print('\\n' * (30 << 20) + 'a')", "print('a ' * (15 << 20))"])
def test_millions_of_lines_or_words_are_a_wrong_answer(sandbox, program):
    assert grade(ECHO, program, sandbox).verdict is Verdict.WRONG_ANSWER


def test_many_lines_for_few_calls_take_little_memory(sandbox):
    program = "import os\nos.write(3, b'ab\\n' * (8 << 20))\nos._exit(0)"
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert grade(SUCCESSOR, program, sandbox).verdict is Verdict.WRONG_ANSWER
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin < 200 << 10  # KiB


def test_numbers_that_cannot_be_compared_are_wrong(sandbox):
    tolerant = Comparison("tolerance", relative=1e-6)
    problem = Problem("large", "test", (StdinTest("", "1.5"),), comparison=tolerant, time_s=1.0)
    assert grade(problem, "print('9' * 2_000_000)", sandbox).verdict is Verdict.WRONG_ANSWER
    keys = Problem("keys", "test", (CallTest((), {"a": 1}),), entry_point="f", time_s=1.0)
    program = "def f():\n    return {10**5000: 1}"
    assert grade(keys, program, sandbox).verdict is Verdict.WRONG_ANSWER
