"""The pipelined trainer learns, whatever the mode."""

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.training_run import tail
from verl_pipeline.testing import runs, tiny_run
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]
PIPELINE = "trainer.v1.one_off_pipeline"


@pytest.mark.parametrize(
    "mode, staleness", [(DRAINED, 1), (ROLLING, 2), (ROLLING, 4), (IN_FLIGHT, 2), (IN_FLIGHT, 4)]
)
def test_the_tiny_model_passes_0_9_in_40_updates(runs_directory, mode, staleness):
    directory = runs_directory / f"{mode}-{staleness}"
    run = runs.run_training(
        directory / "learning",
        [
            *tiny_run.make_overrides(directory, rows=128, batch=8, n=8),
            "actor_rollout_ref.rollout.nnodes=1",
            "trainer.total_training_steps=40",
            f"{PIPELINE}.weight_sync_mode={mode}",
            f"{PIPELINE}.staleness={staleness}",
        ],
        timeout_s=scale_deadline(1500),
    )
    assert run.returncode == 0, tail(run)
    rewards = [run.metrics[step]["critic/score/mean"] for step in sorted(run.metrics)]
    assert max(rewards) > 0.9, rewards
    # Otherwise it would show nothing about this staleness.
    ages = [run.metrics[step]["pipeline/staleness"] for step in sorted(run.metrics)]
    assert max(ages) == staleness, ages
