"""Checks of a training run, shared by the end-to-end tests."""

import contextlib
import glob
import subprocess

import psutil

from verl_pipeline.metrics import find_metric
from verl_pipeline.testing import equivalence, recorded_rollout, runs, tiny_run
from verl_pipeline.trainer import schedule

GLOO = "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs.gloo"


def check_clean(run: runs.Run) -> None:
    """No process, shared memory or temporary file of the run is left (Ray's own session folder
    aside), and nothing was logged that no table describes.
    """
    assert list_unknown_metrics(run) == []
    assert run.survivors == []
    assert run.leftovers == []
    assert glob.glob("/tmp/rl-colocate-zmq-*") == []


def list_unknown_metrics(run: runs.Run) -> list[str]:
    """Logged names that the table of metrics does not have."""
    logged = {name for step in run.metrics.values() for name in step}
    return sorted(name for name in logged if find_metric(name) is None)


def tail(run: runs.Run) -> str:
    """The end of a run's output, for assertion messages."""
    return run.output[-6000:]


def make_staleness_overrides(
    directory, *, trainers=1, replicas=1, manager=recorded_rollout.MANAGER
):
    return [
        *tiny_run.make_overrides(directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        "trainer.v1.trainer_mode=one_off_pipeline",
        f"trainer.n_gpus_per_node={trainers}",
        "actor_rollout_ref.rollout.nnodes=1",
        f"actor_rollout_ref.rollout.n_gpus_per_node={replicas}",
        f"trainer.total_epochs={equivalence.EPOCHS}",
        f"+actor_rollout_ref.rollout.agent.agent_loop_manager_class={manager}",
        # Known to our entry, and new to verl's.
        "++trainer.v1.one_off_pipeline.seeded_sampling=true",
        f"+{GLOO}.checksum=True",
    ]


def check_timers(run, *, validated=()):
    """Timers of a run at staleness 1 that was not resumed, with validations after some steps."""
    for step, metrics in run.metrics.items():
        # The batch is ready when the step asks for it: that is no generation.
        assert not {"timing_s/gen", "timing_per_token_ms/gen"} & metrics.keys()
        assert metrics["pipeline/timing_s/collect"] > 0
        assert metrics["pipeline/batch/generating_s"] > 0
        # A validation drains the pool and sends it the new weights, which the next step need not.
        sends = step > 1 and step - 1 not in validated
        assert ("timing_s/update_weights" in metrics) == sends
        before_validation = [name for name in metrics if "pipeline/timing_s/testing/" in name]
        assert len(before_validation) == 2 * (step in validated)
        syncs = metrics.get("pipeline/weight_sync/count", 0)
        assert syncs == sends + (step in validated)


def check_schedule(run, sync_run):
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
    # Every replica holds what was sent, bit for bit, and computes the same with it.
    tensors = run.metrics[2]["pipeline/weight_sync/tensors"]
    for step in (1, 2, 3):
        assert run.metrics[step]["pipeline/weights/checked_tensors"] == tensors
        assert run.metrics[step]["pipeline/weights/unchecked_tensors"] == 0
        assert run.metrics[step]["pipeline/weights/log_prob_gap"] < 1e-5
    # Weights do arrive: sampler and trainer agree on fresh weights to rounding, and the importance
    # weights are those of one update.
    assert run.metrics[1]["training/rollout_probs_diff_max"] < 1e-4
    assert all("rollout_corr/rollout_is_mean" in run.metrics[step] for step in steps)


def kill_run(process: subprocess.Popen) -> list[psutil.Process]:
    """Kill a run and all that it has started; returns these."""
    main = psutil.Process(process.pid)
    descendants = main.children(recursive=True)
    for one in [main, *descendants]:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ended meanwhile
            one.kill()
    return descendants
