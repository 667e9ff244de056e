"""The sandbox for a judge that is not root, as it mostly is outside of containers; it may use the
tier ``rlimits`` too.

Run as root, these start the tests of the sandbox again as a user without rights, who sees this
machine's files.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_pipeline.sandbox.launch import SPARE_ID, bubblewrap

REPOSITORY = Path(__file__).parents[2]
FEW = [
    "tests/unit/sandbox/test_sandbox.py",
    "-k",
    "right_program or nothing_of_a_program or jail or killed",
]
MANY = [
    "tests/unit/sandbox",
    "tests/unit/grading/test_judge.py",
    "tests/integration/test_attacks.py",
]
DROP = (
    "import os, sys; os.setgroups([]); os.setresgid({0}, {0}, {0}); os.setresuid({0}, {0}, {0});"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already"),
    pytest.mark.timeout(1800),
]


def as_ordinary_user(*command: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in the repository, with interpreter and repository where they are, readable
    for everybody.
    """
    needed = dict.fromkeys(map(str, (sys.base_prefix, sys.prefix, REPOSITORY)))
    outer = [str(bubblewrap()), "--dev-bind", "/", "/", "--perms", "0755", "--tmpfs", "/root"]
    parents = dict.fromkeys(parent for path in needed for parent in reversed(Path(path).parents))
    inside = [str(parent) for parent in parents if Path("/root") in parent.parents]
    outer += [word for path in inside for word in ("--perms", "0755", "--dir", path)]
    outer += [word for path in needed for word in ("--ro-bind", path, path)]
    outer += ["--chdir", str(REPOSITORY), "--setenv", "HOME", "/tmp", "--die-with-parent"]
    drop = [sys.executable, "-I", "-c", DROP.format(SPARE_ID)]
    return subprocess.run([*outer, *drop, *command], capture_output=True, text=True)


@pytest.mark.parametrize(
    "tests", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_the_tests_pass(tests, capsys):
    run = as_ordinary_user(
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
