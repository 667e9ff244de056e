"""Staleness 1 with real engines, from verl's own entry point: versions, batches, nothing aborted,
nothing left.
"""

import pytest

from tests.helpers.training_run import (
    check_clean,
    check_schedule,
    check_timers,
    make_staleness_overrides,
    tail,
)
from verl_pipeline.testing import runs

pytestmark = pytest.mark.timeout(1200)


def test_one_trainer_one_replica(sync_run, runs_directory):
    run = runs.run_training(
        runs_directory / "staleness-1+1",
        [*make_staleness_overrides(runs_directory), "trainer.test_freq=4"],
        module=runs.STOCK,
    )
    assert run.returncode == 0, tail(run)
    check_schedule(run, sync_run)
    check_timers(run, validated=(4, 8, 9))
    assert any(name.startswith("val-core/") for name in run.metrics[4])
    assert "derived actor_rollout_ref.rollout.checkpoint_engine.backend=gloo" in run.output
    check_clean(run)


@pytest.mark.slow
def test_two_trainer_ranks_two_replicas(sync_run, runs_directory):
    run = runs.run_training(
        runs_directory / "staleness-2+2",
        make_staleness_overrides(runs_directory, trainers=2, replicas=2),
        module=runs.STOCK,
    )
    assert run.returncode == 0, tail(run)
    check_schedule(run, sync_run)
    check_clean(run)
