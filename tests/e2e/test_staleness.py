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
from verl_pipeline.testing import equivalence, runs
from verl_pipeline.trainer.validation import VERSION

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


@pytest.mark.slow
def test_a_validation_beside_the_training_has_the_same_scores(sync_run, runs_directory):
    """The schedule, the updates and the scores are those of a run that waits for validations."""
    found = {}
    for beside in (False, True):
        directory = runs_directory / f"validation-{beside}"
        settings = [
            *make_staleness_overrides(directory),
            "trainer.test_freq=4",
            f"+trainer.v1.one_off_pipeline.val_beside_training={beside}",
        ]
        run = found[beside] = runs.run_training(directory, settings, module=runs.STOCK)
        assert run.returncode == 0, tail(run)
        check_schedule(run, sync_run)
        check_clean(run)
    assert list(list_scores(found[True])) == [4, 8, 9]
    assert list_scores(found[True]) == list_scores(found[False])
    for name in equivalence.COMPARED:
        before, beside = ([m[name] for m in run.metrics.values()] for run in found.values())
        assert beside == pytest.approx(before, rel=equivalence.TOLERANCE)


def list_scores(run):
    """By validated version, verl's scores."""
    return {
        metrics[VERSION]: {name: x for name, x in metrics.items() if name.startswith("val-core/")}
        for metrics in run.metrics.values()
        if VERSION in metrics
    }
