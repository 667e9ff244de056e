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
def test_a_validation_beside_the_training_changes_no_version_and_no_score(sync_run, runs_directory):
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
    before, after = found[False], found[True]
    assert [m[VERSION] for m in after.metrics.values() if VERSION in m] == [4, 8, 9]
    # Batch 6 is sampled beside the first validation, whose requests have no seeds. On CPUs, vLLM
    # then ignores those of the others in the same step of the engine.
    for step in range(1, 6):
        for name in equivalence.COMPARED:
            wanted = pytest.approx(before.metrics[step][name], rel=equivalence.TOLERANCE)
            assert after.metrics[step][name] == wanted
    assert list_scores(after, 4) == list_scores(before, 4)


def list_scores(run, version):
    """verl's scores of the validation of these weights."""
    (metrics,) = [metrics for metrics in run.metrics.values() if metrics.get(VERSION) == version]
    return {name: value for name, value in metrics.items() if name.startswith("val-core/")}
