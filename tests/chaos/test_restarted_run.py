"""``restarts``: a run whose processes are killed goes on by itself to its end."""

import contextlib
import random

import psutil
import pytest

from tests.chaos.killed_run import make_overrides
from tests.helpers.patience import wait_until
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.testing import runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 6


def kill_one(process, words):
    """Kill one process of the run whose command line holds one of ``words``."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if any(word in " ".join(child.cmdline()) for word in words):
                found.append(child)
    assert found, words
    random.Random(1).choice(found).kill()


def test_a_run_goes_on_after_the_driver_and_a_trainer_rank_were_killed(tmp_path):
    folder = tmp_path / "run"
    process = runs.start_run(
        folder,
        [*make_overrides(folder, STEPS, "drained"), "trainer.v1.one_off_pipeline.restarts=1"],
    )

    def wait_for(step):
        place = folder / "checkpoints" / f"global_step_{step}"
        wait_until(lambda: process.poll() is not None or place.is_dir(), 300, f"step {step}")

    wait_for(1)
    kill_one(process, ["verl_pipeline.main"])
    wait_for(3)
    kill_one(process, ["RankWorker", "WorkerDict"])
    wait_until(lambda: process.poll() is not None, 600, "the end of the run")
    run = runs.collect_run(folder, process, [])
    assert run.returncode == 0, tail(run)
    assert "attempt 1 ended after" in run.output and "killed by SIGKILL" in run.output
    assert "attempt 2 ended after" in run.output and "exit code 1" in run.output
    assert sorted(step for step in run.metrics if step) == sorted(set(run.metrics) - {0})
    assert max(run.metrics) == STEPS
    check_clean(run)
