"""A command of a script ends with the script, however that ends."""

import signal
import subprocess
import sys

import psutil
import pytest

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.processes import has_ended, wait_until_ended

# The tests may run under nohup, which the commands obey.
SCRIPT = """
import signal
from verl_pipeline.recipes.deepcoder.demo import run_command
from verl_pipeline.processes import raise_on_signals

signal.signal(signal.SIGHUP, signal.SIG_DFL)
raise_on_signals()
run_command("http.server", "0", "--bind", "127.0.0.1")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_command_ends_with_its_script(number):
    script = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, text=True)
    try:
        (child,) = wait_until(psutil.Process(script.pid).children, 60, "the command to start")
        wait_until(child.net_connections, 60, "the command to listen")
        script.send_signal(number)
        error = script.communicate(timeout=scale_deadline(60))[1]
        assert wait_until_ended([child], scale_deadline(10)) == []
        assert ("KeyboardInterrupt" in error) == (number != signal.SIGKILL)
    finally:
        script.kill()


def test_a_hangup_that_nohup_has_switched_off_stays_off():
    program = "import os, signal; from verl_pipeline.processes import raise_on_signals"
    program += "; raise_on_signals(); os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    run = subprocess.run(["nohup", sys.executable, "-c", program], capture_output=True)
    assert run.stdout == b"alive\n"


def test_a_process_whose_exit_code_nobody_has_read_has_ended():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    try:
        assert wait_until_ended([process], 0.2) == [process] and not has_ended(process)
        child.stdin.close()
        assert wait_until_ended([process], scale_deadline(60)) == []
        assert process.status() == psutil.STATUS_ZOMBIE
    finally:
        child.kill()
        child.wait()
    assert has_ended(process)
