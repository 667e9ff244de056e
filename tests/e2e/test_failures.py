"""Failures inside a batch, and runs that cannot go on."""

import math
import signal
import time

import psutil
import pytest

from tests.helpers import failing_run
from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.testing import equivalence, runs, seeded_rollout, tiny_run
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import HELD_BATCHES
from verl_pipeline.verl_adapter.trajectories.held_batches import read_parts

pytestmark = pytest.mark.timeout(1200)

FIELDS = "trainer.v1.one_off_pipeline"


def overrides(directory, *, share):
    return [
        *tiny_run.make_overrides(directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        "actor_rollout_ref.rollout.nnodes=1",
        "trainer.total_epochs=1",
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=tests.helpers.failing_run.FailingManager",
        "reward.custom_reward_function.path=pkg://tests.helpers.failing_run",
        # The run waits this long for the reward that hangs; the others take milliseconds.
        f"{FIELDS}.deadlines.reward_s={min(scale_deadline(8), 20):.0f}",
        f"{FIELDS}.max_infrastructure_share={share}",
    ]


@pytest.mark.slow
def test_siblings_stay_and_what_is_missing_is_infrastructure(sync_run, runs_directory):
    run = runs.run_training(runs_directory / "failures", overrides(runs_directory, share=1.0))
    assert run.returncode == 0, tail(run)
    for step, indices in list(sync_run.list_batches().items())[:3]:
        missing = 3 * (failing_run.BROKEN_GENERATION in indices)
        failed = 4 * sum(index in (failing_run.RAISING, failing_run.HANGING) for index in indices)
        masked = 4 * (failing_run.BROKEN_GRADER in indices)
        metrics = run.metrics[step]
        assert metrics["pipeline/infrastructure/missing"] == missing
        assert metrics["pipeline/infrastructure/verdicts"] == failed + masked
        assert metrics["filters/no_reward/dropped"] == failed
        assert metrics["filters/infrastructure/dropped"] == masked
        assert metrics["filters/lone_survivors"] == (failing_run.BROKEN_GENERATION in indices)
        # What failed counts nowhere: never as reward 0, not even in the mean.
        assert metrics["critic/score/mean"] == metrics["critic/score/min"] == 0.5
        kept = [record for record in run.trajectories if record["step"] == step]
        assert len(kept) == 16 - missing
        assert {record["index"] for record in kept} <= set(indices)
        # All rewards are equal, so nothing is learned: a lone survivor's raw reward would be seen
        # here.
        assert metrics["critic/advantages/max"] == metrics["critic/advantages/min"] == 0
    check_clean(run)


@pytest.mark.slow
def test_what_is_no_reward_costs_its_own_trajectory_only(runs_directory):
    """In training and in validation: the others are trained on, and counted."""
    settings = [
        *tiny_run.make_overrides(runs_directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        "actor_rollout_ref.rollout.nnodes=1",
        f"+actor_rollout_ref.rollout.agent.agent_loop_manager_class={seeded_rollout.MANAGER}",
        "reward.custom_reward_function.path=pkg://tests.helpers.failing_run",
        "reward.custom_reward_function.name=compute_odd_score",
        f"{FIELDS}.max_infrastructure_share=1.0",
        "actor_rollout_ref.rollout.val_kwargs.n=8",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        "trainer.total_training_steps=2",
        "trainer.test_freq=2",
    ]
    run = runs.run_training(runs_directory / "no-rewards", settings)
    assert run.returncode == 0, tail(run)
    for step in (1, 2):
        metrics = run.metrics[step]
        rewards = [row["reward"] for row in run.trajectories if row["step"] == step]
        numbers = [reward for reward in rewards if math.isfinite(reward)]
        assert len(rewards) == 16 and 0 < len(numbers) < 16
        assert metrics["filters/no_reward/dropped"] == 16 - len(numbers)
        assert metrics["pipeline/infrastructure/verdicts"] == 16 - len(numbers)
        assert metrics["pipeline/infrastructure/missing"] == 0
        assert metrics["critic/score/mean"] == pytest.approx(sum(numbers) / len(numbers))
        assert metrics["filters/skipped_update"] == 0 and metrics["actor/grad_norm"] > 0
        assert not [name for name, value in metrics.items() if not math.isfinite(value)]
    last = run.metrics[2]
    assert 0 < last["pipeline/validation/ungraded"] < 32
    assert last["pipeline/validation/missing"] == 0
    assert [name for name in last if name.startswith("val-core/tiny/")]
    assert "validation: first sample without a verdict: " in run.output
    check_clean(run)


@pytest.mark.slow
def test_too_many_failures_stop_the_run_with_the_first_traceback(runs_directory):
    run = runs.run_training(runs_directory / "too-many", overrides(runs_directory, share=0.1))
    assert run.returncode not in (0, None)
    assert (
        "is above trainer.v1.one_off_pipeline.max_infrastructure_share=0.1. First failure:"
        in run.output
    )
    # Of the prompt that the store lists first: one that raised, or one whose reward hung.
    shown = run.output.split("First failure:\n")[1]
    assert "planted: this" in shown or "deadlines.reward_s" in shown
    check_clean(run)


def start_until_step(directory, settings, step):
    """Start a run and wait until it has finished a step; returns the process and everything below
    it.
    """
    process = runs.start_run(directory, settings)
    metrics = directory / "metrics.jsonl"

    def has_finished_step():
        assert process.poll() is None, (directory / "output.log").read_text()[-6000:]
        return metrics.exists() and len(metrics.read_text().splitlines()) >= step

    wait_until(has_finished_step, 600, f"step {step}")
    return process, psutil.Process(process.pid).children(recursive=True)


def endless(directory):
    return [
        *tiny_run.make_overrides(directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        "actor_rollout_ref.rollout.nnodes=1",
        "trainer.total_epochs=100000",
    ]


@pytest.mark.slow
def test_a_dead_replica_stops_the_run_by_name(runs_directory):
    directory = runs_directory / "dead-replica"
    process, below = start_until_step(directory, endless(runs_directory), 2)
    (engine,) = [child for child in below if child.name().startswith("VLLM::Engine")]
    engine.kill()
    process.wait(scale_deadline(120))
    run = runs.collect_run(directory, process, below)
    assert run.returncode not in (0, None)
    assert "rollout replica 0 at" in run.output, tail(run)
    assert run.survivors == []
    # The killed engine could not free its shared memory; nothing else is left.
    assert [path for path in run.leftovers if "psm_" not in path] == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_within_30_s_and_leaves_the_checkpoint(runs_directory, how):
    directory = runs_directory / f"interrupt-{how.name}"
    settings = [
        *endless(runs_directory),
        "trainer.save_freq=2",
        f"trainer.default_local_dir={directory}/checkpoints",
    ]
    process, below = start_until_step(directory, settings, 3)
    start = time.monotonic()
    process.send_signal(how)
    process.wait(scale_deadline(60))
    assert time.monotonic() - start < scale_deadline(30)
    run = runs.collect_run(directory, process, below)
    assert run.returncode == 130, tail(run)
    latest = int((directory / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    held = directory / "checkpoints" / f"global_step_{latest}" / HELD_BATCHES
    assert list(read_parts(held))[0]["key"][0].startswith(f"b{latest + 1}p")
    check_clean(run)
