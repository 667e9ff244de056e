"""Outputs that are made to burden the judge cost it little, and are wrong answers."""

import itertools
import resource

import pytest

from tests.helpers.grading_problems import ADD, ECHO, SUCCESSOR
from tests.helpers.thinned import thin_out
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


def test_members_of_equal_hashes_are_wrong_or_right_as_others_are(sandbox):
    assert grade(ADD, SENDS_COLLIDING_MEMBERS, sandbox).verdict is Verdict.WRONG_ANSWER
    members = set(itertools.product((-1, -2), repeat=11))  # 2,048 of one hash
    pairs = Problem(
        "pairs", "test", (CallTest((), {1: "a", 2: members}),), entry_point="f", time_s=4.0
    )
    program = (
        "import itertools\n"
        "def f():\n    return {{2: set(itertools.product((-2, -1), repeat=11)){}, 1: 'a'}}"
    )
    assert grade(pairs, program.format(""), sandbox).verdict is Verdict.ACCEPTED
    wrong = program.format(" ^ {(-1,) * 11, (-1,) * 12}")
    assert grade(pairs, wrong, sandbox).verdict is Verdict.WRONG_ANSWER


def test_members_nested_too_deep_are_wrong(sandbox):
    program = f"def add(a, b):\n    pass\n{SENDS_DEEP_MEMBERS}"
    for depth in (900_000, 90_000):  # more and less than the room for small values
        result = grade(ADD, program.replace("900_000", str(depth)), sandbox)
        assert result.verdict is Verdict.WRONG_ANSWER, result


def test_an_output_far_longer_than_the_expected_one_is_refused_before_it_is_parsed(sandbox):
    program = "def add(a, b):\n    return 'a' * (3 << 20)"
    result = grade(ADD, program, sandbox)
    assert result.verdict is Verdict.WRONG_ANSWER and "far more than" in result.reason


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ([0] * 100_000, "[complex(0, -0.0)] * 100_000"),
        ([0] * 100_000, "[-0.0] * 100_000"),
        ([()] * 100_000, "[[]] * 100_000"),
        (["\U0001f600"] * 100_000, "['\U0001f600'] * 100_000"),
        ([1e300] * 10_000, "[int(1e300)] * 10_000"),
        ([["ab" * 50]] * 20_000, "[['ab' * 50], ('ab' * 50,)] * 10_000"),  # a table, but for tuples
    ],
)
def test_an_output_as_long_as_the_expected_one_is_compared_whatever_its_types(
    sandbox, expected, answer
):
    test = CallTest((), expected)
    problem = Problem("long", "test", (test,), entry_point="f", time_s=4.0)
    result = grade(problem, f"def f():\n    return {answer}", sandbox)
    assert result.verdict is Verdict.ACCEPTED, result


def test_what_a_program_returns_cannot_call_a_checker(sandbox):
    check = "def check(input, expected, output):\n    return output == [7] == expected"
    comparison = Comparison("checker", checker=check)
    test = CallTest((), [7])
    problem = Problem("f", "test", (test,), entry_point="f", comparison=comparison, time_s=1.0)
    assert grade(problem, "def f():\n    return [7]", sandbox).verdict is Verdict.ACCEPTED
    for sent in (
        '[1]\n[["t", 3], ["t", 0], ["l", 1], 7, ["l", 1], 7]',
        '[1]\r[["t", 3], ["t", 0], ["l", 1], 7, ["l", 1], 7]',
        '[1], [["l", 1], 7]',
        '[1, ["l", 1], 7]',
        "[]",
        "",
        "[[",
        '{"a": 7}',
    ):
        program = f"import os\nos.write(3, {sent!r}.encode())\nos._exit(0)\ndef f():\n    pass"
        result = grade(problem, program, sandbox)
        assert result.verdict is Verdict.WRONG_ANSWER, (sent, result)


@pytest.mark.parametrize(
    "program",
    thin_out(
        [
            "print('\\n' * (30 << 20) + 'a')",
            "print('a ' * (15 << 20))",
            "print('1' * (60 << 20) + 'x')",
            "print('0' * (60 << 20) + 'x')",
            "print('1e' * (30 << 20))",
            "import os\nfor _ in range(60):\n    os.write(1, b'\\xff' * (1 << 20))",
        ],
        keep=2,
    ),
)
def test_millions_of_lines_words_or_digits_are_a_wrong_answer(sandbox, program):
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
