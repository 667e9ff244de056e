"""Checks of a training run, shared by the end-to-end tests."""

import glob

from verl_pipeline.testing import equivalence, runs, seeded_rollout, tiny_run
from verl_pipeline.trainer import schedule

GLOO = "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs.gloo"


def check_clean(run: runs.Run) -> None:
    """No process, shared memory or temporary file of the run is left (Ray's own session folder
    aside).
    """
    assert run.survivors == []
    assert run.leftovers == []
    assert glob.glob("/tmp/rl-colocate-zmq-*") == []


def tail(run: runs.Run) -> str:
    """The end of a run's output, for assertion messages."""
    return run.output[-6000:]


def make_staleness_overrides(directory, *, trainers=1, replicas=1):
    return [
        *tiny_run.make_overrides(directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        "trainer.v1.trainer_mode=one_off_pipeline",
        f"trainer.n_gpus_per_node={trainers}",
        "actor_rollout_ref.rollout.nnodes=1",
        f"actor_rollout_ref.rollout.n_gpus_per_node={replicas}",
        f"trainer.total_epochs={equivalence.EPOCHS}",
        f"+actor_rollout_ref.rollout.agent.agent_loop_manager_class={seeded_rollout.MANAGER}",
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
