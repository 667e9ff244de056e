"""The limit of idle time, also on a machine whose CPUs are all busy."""

import os
import subprocess
import sys

import pytest

from tests.helpers.sandbox_programs import run_program
from verl_pipeline.sandbox import RunLimits

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def busy_machine():
    """Three processes a CPU that compute all the time."""
    loops = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
        for _ in range(3 * len(os.sched_getaffinity(0)))
    ]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


SLEEPS_BESIDE_CHILDREN = """
import os, time
for _ in range(58):
    if os.fork() == 0:
        # All wake up at once, queue for a CPU and sleep again.
        while True:
            time.sleep(0.02 - time.time() % 0.02)
time.sleep(1000)
"""
SLEEPS_BESIDE_THREADS = """
import threading, time
def wake():
    while True:
        time.sleep(0.02 - time.time() % 0.02)
for _ in range(58):
    threading.Thread(target=wake, daemon=True).start()
time.sleep(1000)
"""


@pytest.mark.parametrize("source", [SLEEPS_BESIDE_CHILDREN, SLEEPS_BESIDE_THREADS])
def test_overlapping_waits_hide_no_sleeper(sandbox, busy_machine, source):
    # Idle for 3 s. What the wakings cost on a slow machine is far from the limit of computing.
    outcome = run_program(sandbox, source, limits=RunLimits(cpu_s=30.0, pauses_s=-27.0))
    assert outcome.exceeded_limit == "wall", outcome


PASSES_MESSAGES = """
import os, time
def answer(reading, writing):
    while data := os.read(reading, 1):
        for _ in range(100): sum(range(100))
        os.write(writing, data)
(r1, w1), (r2, w2) = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(w1)
    answer(r1, w2)
    os._exit(0)
os.write(w1, b'x')
for _ in range(600):
    os.read(r2, 1)
    for _ in range(100): sum(range(100))
    os.write(w1, b'x')
print('done')
"""
STARTS_SHORT_PROCESSES = """
import os
for _ in range(80):
    if os.fork() == 0:
        for _ in range(30): sum(range(5000))
        os._exit(0)
    os.wait()
print('done')
"""
USES_THREADS = """
import threading
def compute():
    for _ in range(200): sum(range(5000))
threads = [threading.Thread(target=compute) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('done')
"""


@pytest.mark.parametrize("source", [PASSES_MESSAGES, STARTS_SHORT_PROCESSES, USES_THREADS])
def test_a_busy_machine_makes_no_working_program_idle(sandbox, busy_machine, source):
    outcome = run_program(sandbox, source, limits=RunLimits(cpu_s=5.0, pauses_s=-4.3))
    assert (outcome.exceeded_limit, outcome.stdout) == (None, b"done\n"), outcome


def test_processes_that_end_quickly_hide_no_cpu_time(sandbox):
    source = STARTS_SHORT_PROCESSES.replace("range(80)", "range(10**9)")
    assert run_program(sandbox, source).exceeded_limit == "cpu"
