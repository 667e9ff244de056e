"""Runs of programs in the real sandbox: input and output, limits, exit codes and calls."""

import signal
import socket
import subprocess
import sys

import pytest

from tests.helpers.sandbox_programs import QUICK_LIMITS, run_program
from verl_pipeline.sandbox import AssertRun, RunLimits, channels
from verl_pipeline.sandbox.inside import exit_codes
from verl_pipeline.sandbox.inside.messages import receive_message, send_message
from verl_pipeline.sandbox.inside.value_codec import decode_value, encode_value

pytestmark = pytest.mark.timeout(20)

READS_WITH_BYTES_IO = """
import io, os
input = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline
print(sum(map(int, input().split())))
"""
READS_UNTIL_EOF = """
try:
    while True:
        print(sum(map(int, input().split())))
except EOFError:
    pass
"""
HAS_A_MAIN_GUARD = """
def main():
    print(sum(map(int, input().split())))

if __name__ == '__main__':
    main()
"""
RECURSES_IN_A_THREAD = """
import threading, sys
sys.setrecursionlimit(10**6)
threading.stack_size(1 << 27)
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)
def main():
    deep(10**5)
    print(sum(map(int, input().split())))
threading.Thread(target=main).start()
"""
WRITES_AT_EXIT = """
import atexit, os
atexit.register(lambda: os.write(1, str(sum(map(int, line.split()))).encode()))
line = input()
"""
RUNS_ASYNCIO = """
import asyncio
async def main():
    print(sum(map(int, input().split())))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "source",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))",
        "print(sum(map(int, open(0).read().split())))",
        "import os\nprint(sum(map(int, os.read(0, os.fstat(0).st_size).split())))",
        READS_WITH_BYTES_IO,
        "print(sum(map(int, open('/dev/stdin').read().split())))",
        READS_UNTIL_EOF,
        HAS_A_MAIN_GUARD,
        "from __future__ import annotations\nprint(sum(map(int, input().split())))",
        RECURSES_IN_A_THREAD,
        WRITES_AT_EXIT,
        "import numpy as np\nprint(int(np.array(input().split(), dtype=int).sum()))",
        "import sys\nsys.stdout.write(str(sum(map(int, input().split()))))\nsys.exit()",
        RUNS_ASYNCIO,
        "import sys, os\nos.write(1, str(sum(map(int, input().split()))).encode())\nos._exit(0)",
        "from collections import *\nfrom math import *\nprint(sum(map(int, input().split())))",
        "print(sum(map(int, input().split())))\nexit()",
        "print(sum(map(int, input().split())))\nquit(0)",
    ],
)
def test_a_right_program_works_however_it_reads_and_writes(sandbox, source):
    outcome = run_program(sandbox, source, b"1 2\n")
    assert (outcome.stdout.strip(), outcome.exit_code, outcome.exceeded_limit) == (b"3", 0, None), (
        outcome
    )


def test_large_input_and_output_arrive_complete(sandbox):
    text = b"x" * (10 << 20) + b"\n"
    outcome = run_program(sandbox, "print(input())", text, RunLimits(cpu_s=5.0))
    assert outcome.exit_code == 0 and outcome.stdout == text


ALLOCATES_IN_CHILDREN = """
import os
for _ in range(8):
    if os.fork() == 0:
        x = bytearray(200 << 20)
        while True: pass
while True: pass
"""


@pytest.mark.parametrize(
    ("source", "exceeded_limit"),
    [
        pytest.param("while True: pass", "cpu", id="computes"),
        pytest.param("import time\ntime.sleep(60)", "wall", id="sleeps"),
        pytest.param("x = bytearray(4 << 30)", "memory", id="allocates"),
        pytest.param(ALLOCATES_IN_CHILDREN, "memory", id="allocates in many"),
        pytest.param("while True: print('x' * 4096)", "output", id="prints"),
        pytest.param(
            "import sys\nwhile True: sys.stderr.write('x' * 4096)", "output", id="prints errors"
        ),
        pytest.param(
            "import os\nfor _ in range(4):\n    os.fork()\nwhile True: pass",
            "cpu",
            id="computes in many",
        ),
    ],
)
def test_a_program_beyond_a_limit_is_ended(sandbox, source, exceeded_limit):
    cpu_s = 5.0 if exceeded_limit == "memory" else 0.5  # writing to the memory takes time
    limits = RunLimits(cpu_s, 512 << 20, 8 << 20)
    assert run_program(sandbox, source, limits=limits).exceeded_limit == exceeded_limit


@pytest.mark.parametrize(
    ("source", "exit_code"),
    [
        ("import sys\nsys.exit(3)", 3),
        ("import sys\nsys.exit('no')", 1),
        ("1 / 0", exit_codes.RAISED),
        ("def f(:", exit_codes.NO_SYNTAX),
        ("raise SyntaxError", exit_codes.RAISED),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("import os\nos._exit(7)", 7),
        ("import threading\nthreading.Thread(target=lambda: 1 / 0).start()", 0),
    ],
)
def test_the_exit_code_says_how_a_program_ended(sandbox, source, exit_code):
    outcome = run_program(sandbox, source)
    assert (outcome.exit_code, outcome.exceeded_limit) == (exit_code, None)


def test_a_traceback_shows_frames_of_the_program_only(sandbox):
    stderr = run_program(sandbox, "def f():\n    return 1 / 0\nf()").stderr
    assert "ZeroDivisionError" in stderr and 'File "solution.py", line 2, in f' in stderr
    assert "program_runner" not in stderr


COMPUTES_IN_100_MIB = """
import time
x = bytearray(100 << 20)
while sum(range(1000)) and time.process_time() < 0.3: pass
"""


def test_times_and_memory_are_measured(sandbox):
    outcome = run_program(sandbox, COMPUTES_IN_100_MIB)
    assert outcome.exit_code == 0
    assert 0.25 < outcome.cpu_s < 1.0 and outcome.wall_s >= outcome.cpu_s * 0.5
    assert 100 << 20 < outcome.memory_bytes < 400 << 20


def test_a_function_or_method_is_called_with_values(sandbox):
    with sandbox.lend_worker() as worker:
        source = "print('noise')\ndef f(a, b):\n    return {a: (b, {1.5})}"
        with worker.load_program(source) as program:
            outcome = program.call_function("f", [encode_value(("x", 10**30))], QUICK_LIMITS)
        assert decode_value(outcome.result.decode()) == {"x": (10**30, {1.5})}
        assert outcome.stdout == b"noise\n"
        source = "class Solution:\n    def f(self, a):\n        return a + self.one\n    one = 1"
        with worker.load_program(source) as program:
            outcome = program.call_function("f", [encode_value((1,))], QUICK_LIMITS)
            assert decode_value(outcome.result.decode()) == 2
            arguments = [encode_value((number,)) for number in range(3)]
            lines = program.call_function("f", arguments, QUICK_LIMITS).result.splitlines()
            assert [decode_value(line.decode()) for line in lines] == [1, 2, 3]
            outcome = program.call_function("g", [encode_value((1,))], QUICK_LIMITS)
            assert outcome.exit_code == exit_codes.NO_FUNCTION
        with worker.load_program("def f():\n    return iter([])") as program:
            outcome = program.call_function("f", [encode_value(())], QUICK_LIMITS)
            assert outcome.exit_code == exit_codes.NO_VALUE


RETURNS_A_TREE = """
class Tree:
    def __init__(self, v):
        self.v = v
def change(x):
    x.append(1)
    return Tree(2)
"""


def test_a_served_program_answers_calls_over_a_channel(sandbox):
    """Speaks the protocol of assert-style tests by hand."""
    our_end, program_end = socket.socketpair()
    with (
        sandbox.lend_worker() as worker,
        worker.load_program(RETURNS_A_TREE) as program,
        channels.open_memory_file() as clock,
        our_end,
        program_end,
    ):
        tests = AssertRun(("change",), (), objects=False, max_bytes=10_000)
        with program.start_serving(program_end, tests, QUICK_LIMITS, clock) as serving:
            program_end.close()
            send_message(our_end, encode_value(["request", "call", None, "change", [[0]], {}]))
            answer = decode_value(receive_message(our_end, 10_000), lambda *part: part)
            an_object, a_class = ["object", 0], ("own", ["class", 1], [])
            assert answer == ["value", ("own", an_object, [a_class]), [[0, 1]], {}]
            our_end.shutdown(socket.SHUT_RDWR)
            assert serving.wait_for_outcome().exit_code == 0


LOW_LIMIT = """
import resource
from verl_pipeline.sandbox import RunLimits, Sandbox, SandboxError
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
with Sandbox(1, "namespaces") as sandbox, sandbox.lend_worker() as worker:
    with worker.load_program("print(1)") as program:
        try:
            program.run(b"", RunLimits(memory_bytes=16 << 30))
        except SandboxError as error:
            print(error)
"""


def test_a_lower_hard_limit_of_the_machine_is_named():
    done = subprocess.run([sys.executable, "-c", LOW_LIMIT], capture_output=True, text=True)
    assert f"RLIMIT_AS has the hard limit {8 << 30} here, and this program's" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
