"""A run that stops after a checkpoint and goes on trains what an uninterrupted one trains."""

import pytest

from tests.helpers.training_run import check_schedule, make_staleness_overrides, tail
from verl_pipeline.testing import equivalence, runs

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]

STOP = 4


def test_a_resumed_run_is_the_uninterrupted_one(sync_run, runs_directory):
    directory = runs_directory / "resume"
    settings = [
        *make_staleness_overrides(runs_directory),
        f"trainer.save_freq={STOP}",
        f"trainer.default_local_dir={directory}/checkpoints",
        "trainer.resume_mode=auto",
    ]
    whole = runs.run_training(
        runs_directory / "whole", make_staleness_overrides(runs_directory), module=runs.STOCK
    )
    assert whole.returncode == 0, tail(whole)
    # Stopped right after the checkpoint, with batch STOP+1 sampled and not trained.
    first = runs.run_training(
        directory,
        [*settings, "trainer.checkpoint_callback_class=tests.helpers.stopped_run.StopAfterSave"],
        module=runs.STOCK,
    )
    assert first.returncode != 0 and "planted stop" in first.output, tail(first)
    assert max(first.metrics) < STOP + 1
    second = runs.run_training(directory, settings, module=runs.STOCK)
    assert second.returncode == 0, tail(second)
    # One file holds the metrics of both halves.
    for step in range(1, STOP):
        assert second.metrics[step] == first.metrics[step]
    assert not list(directory.glob("metrics.*.jsonl"))
    # Trajectories of both halves are in one file; metrics of step STOP were not written by the
    # stopped half.
    check_schedule(
        runs.Run(0, "", {**whole.metrics, **second.metrics}, second.trajectories, [], []), sync_run
    )
    key = ("step", "index", "session", "prompt", "response", "reward", "versions")
    rows = [
        sorted([[record[name] for name in key] for record in run.trajectories])
        for run in (whole, second)
    ]
    assert rows[0] == rows[1]
    for step in range(STOP + 1, equivalence.STEPS + 1):
        for name in equivalence.COMPARED:
            assert second.metrics[step][name] == pytest.approx(
                whole.metrics[step][name], rel=1e-4
            ), (step, name)
