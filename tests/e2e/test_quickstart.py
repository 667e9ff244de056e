"""A terminated quickstart ends its training."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.helpers.patience import scale_deadline, wait_until
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

    def is_sampling():
        assert process.poll() is None, (tmp_path / "log").read_text()
        logs = [path.read_text() for path in tmp_path.glob("*/train.log")]
        return any("input_processor" in log for log in logs)

    wait_until(is_sampling, 600, "the validation to start")
    time.sleep(5)
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert any(child.name().startswith("VLLM::Worker") for child in descendants)
    process.send_signal(signal.SIGTERM)
    assert process.wait(scale_deadline(60)) == 143
    assert wait_until_ended(descendants, scale_deadline(5)) == []
    assert shared_memory.find_unused_segments() <= before
