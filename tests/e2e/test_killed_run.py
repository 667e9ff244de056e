"""A run killed with -9 has a report that says where it died."""

import os
import time

import pytest

from tests.helpers.bills import check_bills
from tests.helpers.patience import wait_until
from tests.helpers.training_run import kill_run, tail
from verl_pipeline.report.report_files import write_report
from verl_pipeline.report.run_state import QUIET_S
from verl_pipeline.telemetry.records import FOLDER
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAST_STEP = 50


def kill_after_step(folder, step):
    """Kill every process of a run once ``step`` is logged."""
    process = runs.start_run(
        folder,
        [
            *tiny_run.make_overrides(folder),
            "actor_rollout_ref.rollout.nnodes=1",
            f"trainer.total_training_steps={LAST_STEP}",
        ],
    )
    wait_until(
        lambda: process.poll() is not None or step in runs.read_metrics(folder),
        300,
        f"step {step}",
    )
    descendants = kill_run(process)
    return runs.collect_run(folder, process, descendants)


def let_time_pass(folder, seconds):
    """Make the run's files older."""
    then = time.time() - seconds
    for path in [*folder.glob("*"), *(folder / FOLDER).glob("*")]:
        os.utime(path, (then, then))


def test_the_report_of_a_killed_run_says_where_it_died(tmp_path):
    killed = kill_after_step(tmp_path, step=4)
    assert killed.returncode == -9, tail(killed)
    folder = tmp_path / "run"
    run = load_run(folder)
    assert not run.has_ended and run.steps  # what came in the last second may be lost
    assert run.broken_lines <= 8  # at most the line that a file's process was writing
    check_bills(run)
    let_time_pass(folder, 2 * QUIET_S)
    written = write_report([folder], tmp_path / "page.html")
    (view,) = written.views
    assert view.state.name == "died"
    assert f"It died, or hangs, in step {len(run.steps) + 1} of {LAST_STEP}" in view.state.sentence
    assert "It died, or hangs" in written.page.read_text("utf-8")
