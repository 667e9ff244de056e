"""Every official solution of the available data sets is accepted, idle and under load."""

import multiprocessing
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers import official_solutions
from tests.helpers.official_solutions import FAIL_IN_PLAIN_PYTHON
from tests.helpers.thinned import thin_out_rows
from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest, Verdict, grade
from verl_pipeline.sandbox import Sandbox

pytestmark = pytest.mark.timeout(900)
DATA_SETS = (
    "humaneval humanevalplus mbpp mbpp_sanitized mbppplus leetcode_test leetcode_train "
    "cruxeval_as_asserts cruxeval_as_calls"
).split()
SAMPLE_SIZE = 8


def _spin() -> None:
    while True:
        pass


@pytest.fixture(params=[pytest.param("idle", marks=pytest.mark.slow), "busy"])
def load(request):
    """All CPUs are idle, or busy with other processes."""
    spinners = [
        multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
        for _ in range(os.cpu_count() or 1)
    ]
    if request.param == "busy":
        for spinner in spinners:
            spinner.start()
    yield request.param
    for spinner in spinners:
        if spinner.pid:
            spinner.kill()
            spinner.join()


def _grade_all(pairs, capsys, title):
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:
        results = list(threads.map(lambda pair: grade(*pair, sandbox), pairs))
    rejected = {
        problem.name: f"{result.verdict}, {result.reason}"
        for (problem, _program), result in zip(pairs, results, strict=True)
        if result.verdict is not Verdict.ACCEPTED
    }
    with capsys.disabled():
        accepted = f"{len(pairs) - len(rejected)} of {len(pairs)} accepted"
        print(f"\n{title}: {accepted} {rejected or ''}")
    return rejected


@pytest.mark.parametrize(
    "name",
    ["humaneval", *(pytest.param(name, marks=pytest.mark.slow) for name in DATA_SETS[1:])],
)
def test_every_official_solution_is_accepted(name, load, capsys):
    pairs = list(getattr(official_solutions, f"read_{name}")())
    rejected = _grade_all(pairs, capsys, f"{name}, {load}")
    assert rejected.keys() == FAIL_IN_PLAIN_PYTHON.get(name, set()), rejected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.endswith("plus") else name
        for name in DATA_SETS
        if name != "humaneval"
    ],
)
def test_official_solutions_of_a_sample_are_accepted(name, capsys):
    pairs = [
        (problem, program)
        for problem, program in getattr(official_solutions, f"read_{name}")()
        if problem.name not in FAIL_IN_PLAIN_PYTHON.get(name, set())
    ]
    sample = random.Random(15).sample(pairs, SAMPLE_SIZE)
    assert _grade_all(sample, capsys, f"{name}, {SAMPLE_SIZE} drawn") == {}


USES_CPU = (
    "import time\nend = time.process_time() + 1.6\nwhile time.process_time() < end:\n    pass\n"
)


@pytest.mark.parametrize(
    ("test", "program"),
    thin_out_rows(
        [
            (StdinTest("1", "2"), USES_CPU + "print(int(input()) + 1)"),
            (CallTest((1,), 2), USES_CPU + "def f(x):\n    return x + 1"),
            (AssertTest("assert f(1) == 2", ("f",)), USES_CPU + "def f(x):\n    return x + 1"),
        ],
        keep=1,
    ),
    ids=lambda part: type(part).__name__ if not isinstance(part, str) else "",
)
def test_a_slow_program_within_its_limit_is_accepted(test, program, load):
    """The program takes 80 % of its CPU time; under load the wall-clock time is far longer."""
    problem = Problem("slow", "test", (test,), entry_point="f", time_s=2.0)
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:
        results = list(
            threads.map(lambda _number: grade(problem, program, sandbox), range(sandbox.workers))
        )
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * len(results), results
