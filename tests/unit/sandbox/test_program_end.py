"""A program ends as under plain CPython: same output, same exit status, same last message."""

import re
import signal

import pytest

from tests.helpers import ending_programs, leaving_programs
from tests.helpers.plain_python import run_plainly
from tests.helpers.sandbox_programs import run_program
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


@pytest.mark.parametrize("source", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_ends_as_under_plain_python(sandbox, tmp_path, source):
    stdout, status, message = run_plainly(source, tmp_path)
    outcome = run_program(sandbox, source)
    exit_code = _SAME_STATUS.get(outcome.exit_code, outcome.exit_code)
    found = outcome.stdout, exit_code, _get_last_line(outcome.stderr)
    assert found == (stdout, status, _get_last_line(message)), (message, outcome)
    assert outcome.exceeded_limit is None
