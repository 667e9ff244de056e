"""A change of weights while vLLM generates, with verl on CPUs."""

from pathlib import Path

import pytest

from tests.helpers.cpu_tests import run_cpu_tests


@pytest.mark.slow
def test_weights_change_in_flight():
    run_cpu_tests(Path(__file__).with_name("in_flight_weights_on_cpu.py"))
