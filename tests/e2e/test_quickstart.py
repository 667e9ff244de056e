"""A terminated quickstart ends its training."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from verl_pipeline import shared_memory
from verl_pipeline.processes import wait_until_ended

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_sigterm_during_validation_leaves_no_process_and_no_shared_memory(tmp_path):
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
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert any(child.name().startswith("VLLM::Worker") for child in descendants)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert wait_until_ended(descendants, 5) == []
    assert shared_memory.find_unused_segments() <= before
