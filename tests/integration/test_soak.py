"""Thousands of gradings leak no memory, descriptor, process or file in judge and workers."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.helpers.patience import wait_until
from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest, Verdict, grade
from verl_pipeline.sandbox import Sandbox

pytestmark = pytest.mark.timeout(1800)
SUM = Problem("sum", "soak", (StdinTest("1 2", "3"), StdinTest("3 4", "7")), time_s=1.0)
ADD = Problem("add", "soak", (CallTest((1, 2), 3),), entry_point="add", time_s=1.0)
TWICE = Problem(
    "twice", "soak", (AssertTest("assert twice([1]) == [1, 1]", ("twice",)),), time_s=1.0
)
LEAVES_CHILDREN = """
import os
for _ in range(5):
    if os.fork() == 0:
        import time
        time.sleep(30)
print(0)
"""
LEAVES_FILES = "for n in range(50):\n    open(f'{n}', 'w').write('x' * 10000)\nprint(0)"
PROGRAMS = [
    (SUM, "print(sum(map(int, input().split())))", Verdict.ACCEPTED),
    (SUM, "print('x' * 1_000_000)", Verdict.WRONG_ANSWER),
    (SUM, LEAVES_CHILDREN, Verdict.WRONG_ANSWER),
    (SUM, LEAVES_FILES, Verdict.WRONG_ANSWER),
    (SUM, "import sys\nsys.exit(3)", Verdict.RUNTIME_ERROR),
    (SUM, "while", Verdict.COMPILE_ERROR),
    (ADD, "def add(a, b):\n    return a + b", Verdict.ACCEPTED),
    (ADD, "def add(a, b):\n    return list(range(1000))", Verdict.WRONG_ANSWER),
    (TWICE, "def twice(x):\n    return 2 * x", Verdict.ACCEPTED),
    (TWICE, "def twice(x):\n    return x", Verdict.WRONG_ANSWER),
]
# Caches of Python and of the kernel may still grow after the first gradings.
MAX_GROWTH_BYTES = 16 << 20


def measure_resources() -> dict[str, int]:
    """Return what could grow in this process and in all processes below it."""
    judge = psutil.Process()
    children = judge.children(recursive=True)
    files = {
        path
        for folder in ("/tmp", "/dev/shm")
        for path in Path(folder).iterdir()
        if "verl_pipeline" in path.name
    }
    return {
        "rss": judge.memory_info().rss,
        "rss_of_workers": sum(child.memory_info().rss for child in children),
        "descriptors": (
            judge.num_fds() + sum(child.num_fds() for child in children if os.getuid() == 0)
        ),
        "processes": len(children),
        "threads": judge.num_threads(),
        "files": len(files),
    }


def measure_settled_resources() -> dict[str, int]:
    """Measure after killed processes have gone."""
    time.sleep(1.0)
    return measure_resources()


@pytest.mark.parametrize("gradings", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_gradings_leak_nothing(gradings, capsys):
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:

        def grade_many(count: int) -> None:
            chosen = [PROGRAMS[number % len(PROGRAMS)] for number in range(count)]
            results = threads.map(lambda each: (grade(each[0], each[1], sandbox), each[2]), chosen)
            wrong = [result for result, verdict in results if result.verdict is not verdict]
            assert wrong == []

        grade_many(100)
        before, begin = measure_settled_resources(), time.monotonic()
        for _ in range(gradings // 500):
            grade_many(500)
        seconds = time.monotonic() - begin
        after = measure_settled_resources()
    with capsys.disabled():
        print(f"\n{gradings} gradings in {seconds:.0f} s: {before} -> {after}")
    for name in ("descriptors", "processes", "threads"):
        assert after[name] <= before[name], name
    # Those of tests that run beside this one go in time.
    wait_until(lambda: measure_resources()["files"] <= before["files"], 60, "no file to be left")
    for name in ("rss", "rss_of_workers"):
        assert after[name] - before[name] < MAX_GROWTH_BYTES, name
