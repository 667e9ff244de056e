"""The quickstart's training ends with it."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from verl_pipeline import shared_memory

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_sigterm_while_the_held_out_set_is_sampled_leaves_nothing(tmp_path):
    before = shared_memory.find_unused_segments()
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "verl_pipeline.quickstart", "--output", str(tmp_path)],
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 600
    while "input_processor" not in "".join(
        path.read_text() for path in tmp_path.glob("*/train.log")
    ):
        assert process.poll() is None and time.monotonic() < deadline, (
            tmp_path / "log"
        ).read_text()
        time.sleep(1)
    time.sleep(5)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any(child.name().startswith("VLLM::Worker") for child in below)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert psutil.wait_procs(below, timeout=5)[1] == []
    assert shared_memory.find_unused_segments() <= before
