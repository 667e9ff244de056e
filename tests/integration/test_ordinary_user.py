"""Runs tests of the sandbox for a judge that is not root, as is usual outside of containers.

Such a judge may also use the tier ``rlimits``. Run as root, these tests start other tests again as
an unprivileged user who sees this machine's files.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_pipeline.sandbox.launch_command import UNPRIVILEGED_ID, find_bubblewrap

REPOSITORY = Path(__file__).parents[2]
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
DROP_ROOT_SCRIPT = (
    "import os, sys; os.setgroups([]); os.setresgid({0}, {0}, {0}); os.setresuid({0}, {0}, {0});"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already"),
    pytest.mark.timeout(1800),
]


def run_as_ordinary_user(*command: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in the repository.

    Interpreter and repository stay at their paths, but are readable for everybody.
    """
    needed = dict.fromkeys(map(str, (sys.base_prefix, sys.prefix, REPOSITORY)))
    outer = [str(find_bubblewrap()), "--dev-bind", "/", "/", "--perms", "0755", "--tmpfs", "/root"]
    parents = dict.fromkeys(parent for path in needed for parent in reversed(Path(path).parents))
    inside = [str(parent) for parent in parents if Path("/root") in parent.parents]
    outer += [word for path in inside for word in ("--perms", "0755", "--dir", path)]
    outer += [word for path in needed for word in ("--ro-bind", path, path)]
    outer += ["--chdir", str(REPOSITORY), "--setenv", "HOME", "/tmp", "--die-with-parent"]
    drop = [sys.executable, "-I", "-c", DROP_ROOT_SCRIPT.format(UNPRIVILEGED_ID)]
    return subprocess.run([*outer, *drop, *command], capture_output=True, text=True)


@pytest.mark.parametrize(
    "tests", [FEW_TESTS, pytest.param(MANY_TESTS, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_the_tests_pass_for_an_ordinary_user(tests, capsys):
    run = run_as_ordinary_user(
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
