"""Our weight sender, with verl on CPUs."""

from pathlib import Path

import pytest

from tests.helpers.cpu_tests import run_cpu_tests


@pytest.mark.medium
def test_weights_reach_verls_receiver():
    run_cpu_tests(Path(__file__).with_name("vllm_weight_sender_on_cpu.py"))
