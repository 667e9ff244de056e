"""The hand-over to vLLM: verl fixes its platform at import, so these tests run in a process that
chose the CPU.
"""

import os
import subprocess
import sys
from pathlib import Path


def test_hand_over():
    tests = Path(__file__).with_name("vllm_weight_sender_on_cpu.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tests)],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout
    assert "5 passed" in run.stdout
