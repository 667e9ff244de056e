"""Problems that the attack corpus is graded with, a right program for each, and a spy.

The first test of each problem is public: attacks may know its output.
"""

from tests.helpers.attack_channel_problems import (
    CHANNEL_PROBLEMS,
    RIGHT_CHANNEL_PROGRAMS,
    make_attack_problem,
)
from verl_pipeline.grading import AssertTest, CallTest, Comparison, StdinTest
from verl_pipeline.grading.readers import read_kodcode
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

_CHECK_SPLIT = """
def check(input, expected, output):
    left, right = map(int, output.split())
    return left > 0 and right > 0 and left + right == int(input)
"""
_CHECK_PAIR = """
def check(input, expected, output):
    is_pair = type(output) is list and len(output) == 2
    return is_pair and min(output) > 0 and sum(output) == input[0]
"""
_NODE_PRELUDE = """
class Node:
    def __init__(self, value, rest=None):
        self.value, self.rest = value, rest

    def __eq__(self, other):
        return type(other) is Node and (self.value, self.rest) == (other.value, other.rest)
"""
_CHECK_TWICE = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(-3) == -6
    assert candidate([1, 2]) == [1, 2, 1, 2]
    assert candidate(10) == 20

check(twice)
"""
_CHECK_HALF = """
import numpy as np

def check(candidate):
    for number, expected in ((3.0, 1.5), (1.0, 0.5)):
        assert np.allclose(candidate(number), expected, rtol=1e-7, atol=1e-6)

check(half)
"""
_CHECK_SQUARES = """
for value, expected in zip(map(square, [1, 2, 3]), [1, 4, 9]):
    assert value == expected
"""
_PYTEST_FILE = """
import pytest
from solution import *

@pytest.fixture
def stack():
    return Stack([1, 2])

@pytest.mark.parametrize('n, doubled', [(1, 2), (5, 10), (-3, -6)])
def test_twice(n, doubled):
    assert twice(n) == doubled

def test_pop(stack):
    assert stack.pop() == 2
    assert stack.items == [1]

class TestRoot:
    def test_root(self):
        assert root(4) == pytest.approx(2.0)
        assert all(root(n * n) == pytest.approx(n) for n in range(3))

    def test_negative(self):
        with pytest.raises(ValueError, match='negative'):
            root(-1)
"""


_PROBLEM_LIST = (
    make_attack_problem(
        "sum",
        StdinTest("1 2 3\n", "6"),
        StdinTest("-5 5 7 100\n", "107"),
        StdinTest("123456 654321\n", "777777"),
        StdinTest("123456789012345678901 1\n", "123456789012345678902"),
    ),
    make_attack_problem(
        "yes_no", StdinTest("4\n", "YES"), StdinTest("7\n", "NO"), StdinTest("10\n", "YES")
    ),
    make_attack_problem(
        "names",
        StdinTest("2\nAda\nBea\n", "Ada\nBea"),
        StdinTest("3\nZoë\nCleo\nAda\n", "Ada\nCleo\nZoë"),
        StdinTest("4\nd\nb\nc\na\n", "a\nb\nc\nd"),
    ),
    make_attack_problem(
        "add",
        CallTest((0, 1), 1),
        CallTest((2, 3), 5),
        CallTest((2**60, 1), 2**60 + 1),
        CallTest((-4, 4), 0),
        entry_point="add",
    ),
    make_attack_problem(
        "lent",  # the prelude's imports bring an `add` along
        CallTest((0, 1), 1),
        CallTest((2, 3), 5),
        entry_point="add",
        prelude=IMPORTS_PRELUDE,
    ),
    make_attack_problem(
        "counts",
        CallTest((["b", "a", "b"],), {"a": 1, "b": 2}),
        CallTest((["c"],), {"c": 1}),
        entry_point="count",
    ),
    make_attack_problem("twice", AssertTest(_CHECK_TWICE, ("twice",))),
    make_attack_problem("half", AssertTest(_CHECK_HALF, ("half",))),
    make_attack_problem("squares", AssertTest(_CHECK_SQUARES, ("square",))),
    make_attack_problem("file", *read_kodcode(_PYTEST_FILE, name="file").tests),
    make_attack_problem(
        "push",
        AssertTest(
            "assert push(Node(1), 2) == Node(2, Node(1))\nassert push(None, 3) == Node(3)",
            ("push",),
        ),
        prelude=_NODE_PRELUDE,
    ),
    make_attack_problem(
        "roots",
        CallTest((1, -3, 2), [1.0, 2.0]),
        CallTest((1, 0, -2), [-(2**0.5), 2**0.5]),
        CallTest((1, -1e8, 1), [1e-8, 1e8]),
        entry_point="roots",
        comparison=Comparison("tolerance", relative=1e-9),
    ),
    make_attack_problem(
        "mean",
        StdinTest("1 2\n", "1.5"),
        StdinTest("1 1 2\n", "1.3333333333"),
        comparison=Comparison("tolerance", absolute=1e-6, relative=1e-6),
    ),
    make_attack_problem(
        "factors",
        StdinTest("12\n", "2\n2\n3"),
        StdinTest("105\n", "3\n5\n7"),
        comparison=Comparison("any_order"),
    ),
    make_attack_problem(
        "split",
        StdinTest("4\n", "1 3"),
        StdinTest("9\n", "4 5"),
        comparison=Comparison("checker", checker=_CHECK_SPLIT),
    ),
    make_attack_problem(
        "pair",
        CallTest((4,), [1, 3]),
        CallTest((9,), [4, 5]),
        entry_point="pair",
        comparison=Comparison("checker", checker=_CHECK_PAIR),
    ),
)
PROBLEMS = {problem.name: problem for problem in (*_PROBLEM_LIST, *CHANNEL_PROBLEMS)}
RIGHT_PROGRAMS = {
    "sum": "print(sum(map(int, input().split())))",
    "yes_no": "print('NO' if int(input()) % 2 else 'YES')",
    "names": "print(*sorted(input() for _ in range(int(input()))), sep='\\n')",
    "add": "def add(a, b):\n    return a + b",
    "lent": "def add(a, b):\n    return a + b",
    "counts": "def count(words):\n    return {word: words.count(word) for word in words}",
    "twice": "def twice(x):\n    return 2 * x",
    "half": "def half(x):\n    return x / 2",
    "squares": "def square(x):\n    return x * x",
    "file": (
        """
class Stack:
    def __init__(self, items):
        self.items = list(items)

    def pop(self):
        return self.items.pop()

def twice(n):
    return 2 * n

def root(n):
    if n < 0:
        raise ValueError('negative')
    return n ** 0.5
"""
    ),
    "push": "def push(node, value):\n    return Node(value, node)",
    "roots": (
        """
from math import copysign, sqrt

def roots(a, b, c):
    larger = -(b + copysign(sqrt(b * b - 4 * a * c), b)) / 2
    return sorted([larger / a, c / larger])
"""
    ),
    "mean": "numbers = list(map(float, input().split()))\nprint(sum(numbers) / len(numbers))",
    "factors": (
        """
number, factor = int(input()), 2
while number > 1:
    while number % factor == 0:
        print(factor)
        number //= factor
    factor += 1
"""
    ),
    "split": "print(1, int(input()) - 1)",
    "pair": "def pair(n):\n    return [1, n - 1]",
    **RIGHT_CHANNEL_PROGRAMS,
}
# Prints everything it can find of a program before it.
SPY = """
import builtins, glob, os, sys

folders = ("/tmp", "/dev/shm", "/var/tmp", "/run", ".")
found = [path for folder in folders for path in glob.glob(folder + "/*")]
pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
found += [pid for pid in pids if pid not in (1, os.getpid())]
names = (*os.environ, *sys.modules, *vars(builtins), *vars(sys))
found += [name for name in names if "attack" in name.lower()]
# Of these, the tier `namespaces` shows the first only.
sysvipc = [f"/proc/sysvipc/{name}" for name in ("shm", "msg", "sem")]
for path in ("/proc/self/net/unix", *sysvipc, "/proc/1/comm"):
    if path != "/proc/self/net/unix" and not os.path.exists(path):
        continue
    with open(path) as file:
        found += [
            line
            for line in file
            if "attack" in line or "sysvipc" in path and line.split()[0].isdigit()
        ]
print(found or "clean")
"""
SPY_PROBLEM = make_attack_problem("spy", StdinTest("", "clean"), StdinTest("", "clean"))
