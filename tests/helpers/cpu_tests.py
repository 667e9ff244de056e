"""Tests that need verl on CPUs: verl fixes its platform at import, so they run in a process of
their own.
"""

import os
import re
import subprocess
from pathlib import Path

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python


def run_cpu_tests(file: Path) -> None:
    """Run the tests in ``file``; all must pass, none may be skipped."""
    run = subprocess.run(
        [find_python(), "-m", "pytest", "-q", str(file)],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=scale_deadline(240),
    )
    summary = run.stdout.strip().rpartition("\n")[2]
    assert run.returncode == 0, run.stdout
    assert re.match(r"\d+ passed", summary) and "skipped" not in summary, summary
