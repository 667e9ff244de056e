"""Our weight sender: verl fixes its platform at import, so these tests run in a process that chose
the CPU.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python


@pytest.mark.medium
def test_weights_reach_verls_receiver():
    tests = Path(__file__).with_name("vllm_weight_sender_on_cpu.py")
    run = subprocess.run(
        [find_python(), "-m", "pytest", "-q", str(tests)],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=scale_deadline(240),
    )
    assert run.returncode == 0, run.stdout
    assert "5 passed" in run.stdout
