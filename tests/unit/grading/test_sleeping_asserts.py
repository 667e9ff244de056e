"""Sleep in assert-style tests: each side is charged for its own turns only."""

import pytest

from tests.helpers.grading_problems import make_assert_problem
from verl_pipeline.grading import Verdict, grade

pytestmark = pytest.mark.timeout(120)
# The limit of CPU time is 1 s, so the program may be idle for 4 s; the tests may compute for 2 s
# and be idle for 10 s.
THREE_CALLS = "for n in range(3):\n    assert f(n) == n"
SLEEPY_TESTS = "import time\nassert f(1) == 1\ntime.sleep(6)\nassert f(2) == 2"
SLEEPS = "import time\ndef f(n):\n    time.sleep({seconds})\n    return n"
SLEEPS_IN_A_CHILD = """
import subprocess
def f(n):
    subprocess.run(['sleep', '2'])
    return n
"""
SLEEPS_WHILE_LOADING = "import time\ntime.sleep(6)\ndef f(n): return n"
SLEEPS_AT_EXIT = "import atexit, time\natexit.register(time.sleep, 60)\ndef f(n): return n"
LEAVES_A_THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
def f(n): return n
"""
STOPS = "import os, signal\ndef f(n): os.kill(os.getpid(), signal.SIGSTOP)"
CLOSES_THE_CHANNEL = """
import os, time
def f(n):
    os.close(3)
    time.sleep(60)
"""

SLEEPY_CALLBACK = """
import time
def sleep(n):
    time.sleep(6)
    return n
assert f(sleep) == 3
"""
CALLBACK = "assert f(abs) == 3\nassert f(lambda n: n) == 3"
SLEEPS_BETWEEN_CALLBACKS = """
import time
def f(g):
    for _ in range(60):
        time.sleep(0.1)
        n = g(3)
    return n
"""
SENDS_HALF_A_MESSAGE = """
import os, time
def f(n):
    os.write(3, b'x')
    time.sleep(60)
"""
REACHES_FOR_THE_CLOCK = """
import os, struct, time
def f(n):
    for descriptor in range(3, 128):
        try:
            os.pwrite(descriptor, struct.pack('<d', 0.001), 0)
        except OSError:
            pass
    time.sleep(6)
    return n
"""
# The tests' class sleeps while they make their copies of what the program returned.
SLEEPS_WHILE_DECODED = """
import time
class Point:
    def __init__(self, x):
        self.x = x
    def __hash__(self):
        time.sleep(5.5)
        return hash(self.x)
"""
RETURNS_A_SET = """
class Point:
    def __init__(self, x):
        self.x = x
def f(n):
    return {Point(n)}
"""
COMPUTING_TESTS = """
import time
end = time.process_time() + 1.5
while time.process_time() < end:
    pass
assert f(1) == 1
"""


@pytest.mark.parametrize(
    ("program", "tests", "verdict"),
    [
        pytest.param(SLEEPS.format(seconds=1), THREE_CALLS, Verdict.ACCEPTED, id="briefly"),
        pytest.param(
            SLEEPS.format(seconds=2),
            THREE_CALLS,
            Verdict.TIME_LIMIT,
            id="sum",
            marks=pytest.mark.slow,
        ),
        pytest.param(SLEEPS.format(seconds=6), THREE_CALLS, Verdict.TIME_LIMIT, id="one call"),
        pytest.param(
            SLEEPS_IN_A_CHILD, THREE_CALLS, Verdict.TIME_LIMIT, id="child", marks=pytest.mark.slow
        ),
        pytest.param(
            SLEEPS_WHILE_LOADING,
            THREE_CALLS,
            Verdict.TIME_LIMIT,
            id="while loading",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            SLEEPS_AT_EXIT, THREE_CALLS, Verdict.TIME_LIMIT, id="at exit", marks=pytest.mark.slow
        ),
        pytest.param(LEAVES_A_THREAD, THREE_CALLS, Verdict.TIME_LIMIT, id="thread"),
        pytest.param(STOPS, THREE_CALLS, Verdict.TIME_LIMIT, id="stopped", marks=pytest.mark.slow),
        pytest.param(
            CLOSES_THE_CHANNEL,
            THREE_CALLS,
            Verdict.TIME_LIMIT,
            id="closed channel",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            REACHES_FOR_THE_CLOCK,
            THREE_CALLS,
            Verdict.TIME_LIMIT,
            id="clock",
            marks=pytest.mark.slow,
        ),
        pytest.param("def f(n): return n", SLEEPY_TESTS, Verdict.ACCEPTED, id="sleepy tests"),
        pytest.param("def f(g): return g(3)", SLEEPY_CALLBACK, Verdict.ACCEPTED, id="callback"),
        pytest.param(
            SLEEPS_BETWEEN_CALLBACKS,
            CALLBACK,
            Verdict.TIME_LIMIT,
            id="callbacks",
            marks=pytest.mark.slow,
        ),
        pytest.param(SENDS_HALF_A_MESSAGE, THREE_CALLS, Verdict.TIME_LIMIT, id="half a message"),
        pytest.param(
            "def f(n): return 60",
            "import time\ntime.sleep(f(1))",
            Verdict.TIME_LIMIT,
            id="tests sleep as told",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_sleep_is_charged_to_the_side_whose_turn_it_is(sandbox, program, tests, verdict):
    result = grade(make_assert_problem(tests, "f"), program, sandbox)
    assert result.verdict is verdict, result


def test_decoding_an_answer_is_the_tests_turn(sandbox):
    problem = make_assert_problem("assert len(f(1)) == 1", "f", prelude=SLEEPS_WHILE_DECODED)
    result = grade(problem, RETURNS_A_SET, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result


def test_tests_may_compute_longer_than_the_program(sandbox):
    """They also decode what it returns, which may cost as much as to compute it."""
    result = grade(make_assert_problem(COMPUTING_TESTS, "f"), "def f(n): return n", sandbox)
    assert result.verdict is Verdict.ACCEPTED, result
