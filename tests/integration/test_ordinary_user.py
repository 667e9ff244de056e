"""Runs tests of the sandbox for a judge that is not root, as is usual outside of containers.

Such a judge may also use the tier ``rlimits``. Run as root, these tests start other tests again as
an unprivileged user who sees this machine's files.
"""

import os
import sys

import pytest

from tests.helpers.simulated_machine import Machine

FEW_TESTS = [
    "tests/unit/sandbox/test_program_run.py",
    "tests/unit/sandbox/test_isolation.py",
    "tests/unit/sandbox/test_worker_pool.py",
    "-k",
    "right_program or leaves_nothing or jail or killed",
]
MANY_TESTS = [
    "tests/unit/sandbox",
    "tests/unit/grading/test_verdicts.py",
    "tests/unit/grading/test_assert_grading.py",
    "tests/unit/grading/test_hostile_output.py",
    "tests/unit/grading/test_infrastructure_verdict.py",
    "tests/integration/test_attacks.py",
]
pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already"),
    pytest.mark.timeout(1800),
]


@pytest.mark.parametrize(
    "tests", [FEW_TESTS, pytest.param(MANY_TESTS, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_the_tests_pass_for_an_ordinary_user(tests, capsys):
    run = Machine().run(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "slow or not slow",
        *tests,
    )
    with capsys.disabled():
        print("\n" + run.stdout[-100:])
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "refused to root" not in run.stdout
