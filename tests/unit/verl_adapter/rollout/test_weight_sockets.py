"""Names of the sockets over which weights go to vLLM, with verl on CPUs."""

from pathlib import Path

import pytest

from tests.helpers.cpu_tests import run_cpu_tests


@pytest.mark.slow
@pytest.mark.medium
def test_no_two_runs_share_a_socket():
    run_cpu_tests(Path(__file__).with_name("weight_sockets_on_cpu.py"))
