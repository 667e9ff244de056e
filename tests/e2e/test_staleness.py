"""Staleness 1 with real engines, from verl's own entry point: versions, batches, nothing aborted,
nothing left.
"""

import pytest

from tests.e2e.conftest import check_clean, tail
from verl_pipeline.testing import equivalence, runs, seeded, tiny
from verl_pipeline.trainer import schedule

pytestmark = pytest.mark.timeout(1200)

GLOO = "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs.gloo"


def overrides(directory, *, trainers=1, replicas=1):
    return [
        *tiny.make_overrides(directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        "trainer.v1.trainer_mode=one_off_pipeline",
        f"trainer.n_gpus_per_node={trainers}",
        "actor_rollout_ref.rollout.nnodes=1",
        f"actor_rollout_ref.rollout.n_gpus_per_node={replicas}",
        f"trainer.total_epochs={equivalence.EPOCHS}",
        f"+actor_rollout_ref.rollout.agent.agent_loop_manager_class={seeded.MANAGER}",
        f"+{GLOO}.checksum=True",
    ]


def check_schedule(run, sync_run, *, boundaries=()):
    """Versions as the table says, batches as sync's; after a validation a batch may be sampled with
    newer weights.
    """
    steps = range(1, equivalence.STEPS + 1)
    assert sorted(run.metrics) == list(steps)
    for record in run.trajectories:
        wanted = schedule.oldest_allowed_version(record["step"], 1)
        assert record["versions"] == [wanted, wanted], record
    assert run.list_batches() == sync_run.list_batches()
    per_step = {step: sum(record["step"] == step for record in run.trajectories) for step in steps}
    assert set(per_step.values()) == {16}
    for step in steps:
        metrics = run.metrics[step]
        assert metrics["pipeline/staleness"] == min(step - 1, 1)
        assert metrics.get("pipeline/weight_sync/aborted_requests", 0) == 0
        assert metrics["training/off_policy/trajectory_spans/max"] == 1
        assert metrics["pipeline/infrastructure/share"] == 0
    # Weights do arrive: sampler and trainer agree on fresh weights to rounding, and the importance
    # weights are those of one update.
    assert run.metrics[1]["training/rollout_probs_diff_max"] < 1e-4
    assert all("rollout_corr/rollout_is_mean" in run.metrics[step] for step in steps)


def test_one_trainer_one_replica(sync_run, runs_directory):
    run = runs.run_training(
        runs_directory / "staleness-1+1",
        [*overrides(runs_directory), "trainer.test_freq=4"],
        module=runs.STOCK,
    )
    assert run.returncode == 0, tail(run)
    check_schedule(run, sync_run)
    assert any(name.startswith("val-core/") for name in run.metrics[4])
    assert "derived actor_rollout_ref.rollout.checkpoint_engine.backend=gloo" in run.output
    check_clean(run)


@pytest.mark.slow
def test_two_trainer_ranks_two_replicas(sync_run, runs_directory):
    run = runs.run_training(
        runs_directory / "staleness-2+2",
        overrides(runs_directory, trainers=2, replicas=2),
        module=runs.STOCK,
    )
    assert run.returncode == 0, tail(run)
    check_schedule(run, sync_run)
    check_clean(run)
