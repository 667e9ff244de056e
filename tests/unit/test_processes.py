"""A command of a script ends with the script, however that ends."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

SCRIPT = """
from recipes.deepcoder.demo import run_command
from verl_pipeline.processes import raise_on_signals

raise_on_signals()
run_command("http.server", "0", "--bind", "127.0.0.1")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_its_script(number):
    script = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while (
            not (children := psutil.Process(script.pid).children()) and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        (child,) = children
        while not child.net_connections() and time.monotonic() < deadline:
            time.sleep(0.1)
        script.send_signal(number)
        error = script.communicate(timeout=60)[1]
        _gone, alive = psutil.wait_procs([child], timeout=10)
        assert not alive
        assert ("KeyboardInterrupt" in error) == (number != signal.SIGKILL)
    finally:
        script.kill()
