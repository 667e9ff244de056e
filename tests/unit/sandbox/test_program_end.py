"""A program ends as under plain CPython: same output, same exit status, same last message."""

import re
import signal

import pytest

from tests.helpers import ending_programs, leaving_programs
from tests.helpers.plain_python import run_plainly
from tests.helpers.sandbox_programs import run_program
from tests.helpers.thinned import thin_out
from verl_pipeline.sandbox import RunLimits
from verl_pipeline.sandbox.inside.exit_codes import NO_SYNTAX

PROGRAMS = {
    **ending_programs.PROGRAMS_WITH_STREAMS,
    **ending_programs.PROGRAMS_THAT_EXIT,
    **leaving_programs.PROGRAMS_WITH_FINALISERS,
    **leaving_programs.PROGRAMS_WITH_EXIT_FUNCTIONS,
    **leaving_programs.PROGRAMS_WITH_THREADS,
    **leaving_programs.PROGRAMS_WITH_PROCESSES,
}
pytestmark = pytest.mark.timeout(30)
# What the sandbox reports instead of CPython's own status: syntax errors have a verdict of their
# own, and a program does not end itself by SIGINT.
_SAME_STATUS = {NO_SYNTAX: 1, 128 + signal.SIGINT: -signal.SIGINT}


def _get_last_line(message):
    """Return the last line of an error message without addresses."""
    return re.sub("0x[0-9a-f]+", "0x", message.strip().rpartition("\n")[2])


@pytest.mark.parametrize(
    "source",
    thin_out([pytest.param(source, id=name) for name, source in PROGRAMS.items()], keep=50),
)
def test_a_program_ends_as_under_plain_python(sandbox, tmp_path, source):
    stdout, status, message = run_plainly(source, tmp_path)
    outcome = run_program(sandbox, source)
    exit_code = _SAME_STATUS.get(outcome.exit_code, outcome.exit_code)
    found = outcome.stdout, exit_code, _get_last_line(outcome.stderr)
    assert found == (stdout, status, _get_last_line(message)), (message, outcome)
    assert outcome.exceeded_limit is None


@pytest.mark.parametrize(
    ("source", "exceeded_limit"),
    [
        ("class A:\n    def __del__(self): time.sleep(60)\na = A()", "wall"),
        ("class A:\n    def __del__(self):\n        while True: pass\na = A()", "cpu"),
        ("class A:\n    def __del__(self): self.x = bytearray(1 << 30)[:]\na = A()", None),
        ("class A:\n    def __del__(self): A.a = self\na = A()", None),
        ("class A:\n    def __del__(self): A()\na = A()", "cpu"),
        ("import atexit\natexit.register(time.sleep, 60)", "wall"),
        ("import atexit\ndef f(): atexit.register(f)\nf()", None),
        ("import sys\nsys.stdout.flush = lambda: time.sleep(60)", "wall"),
        ("import gc\ngc.get_objects = lambda: 1 / 0\nprint(1)", None),
        ("import os\nos._exit = lambda code: None\nprint(1)", None),
        ("import interpreter_end", None),
    ],
)
def test_an_end_that_takes_too_long_or_too_much_is_the_programs_own_failure(
    sandbox, source, exceeded_limit
):
    """Neither does it disturb the next run."""
    limits = RunLimits(cpu_s=0.5, memory_bytes=256 << 20, pauses_s=0.5)
    outcome = run_program(sandbox, f"import time\n{source}", limits=limits)
    assert outcome.exceeded_limit == exceeded_limit, outcome
    assert run_program(sandbox, "print(1)").stdout == b"1\n"
