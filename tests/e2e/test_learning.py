"""The pipelined trainer learns."""

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.training_run import tail
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]


def test_the_tiny_model_passes_0_9_in_60_updates(runs_directory):
    run = runs.run_training(
        runs_directory / "learning",
        [
            *tiny_run.make_overrides(runs_directory, rows=128, batch=8, n=8),
            "actor_rollout_ref.rollout.nnodes=1",
            "trainer.total_training_steps=60",
        ],
        timeout_s=scale_deadline(1500),
    )
    assert run.returncode == 0, tail(run)
    rewards = [run.metrics[step]["critic/score/mean"] for step in sorted(run.metrics)]
    assert max(rewards) > 0.9, rewards
