"""The advice on a real run names its bound, and following it makes the step shorter."""

import pytest

from tests.helpers import slow_parts
from tests.helpers.training_run import tail
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS, BATCH, GROUP = 4, 4, 4


def advise_on_run(folder, workers):
    """The advice on a run whose rewards take 2 s each, one after the other on each worker."""
    run = runs.run_training(
        folder,
        [
            *tiny_run.make_overrides(folder, batch=BATCH, n=GROUP),
            "actor_rollout_ref.rollout.nnodes=1",
            f"trainer.total_training_steps={STEPS}",
            f"reward.custom_reward_function.path=pkg://{slow_parts.__name__}",
            "reward.custom_reward_function.name=reward_one_by_one",
            f"reward.num_workers={workers}",
        ],
    )
    assert run.returncode == 0, tail(run)
    return advise(load_run(folder / "run"))


def test_a_run_that_waits_for_rewards_is_told_so_and_gains_by_more_workers(tmp_path):
    slow = advise_on_run(tmp_path / "one", workers=1)
    assert slow.bound == "reward" and "give it more workers" in slow.sentence, slow.sentence
    # 16 rewards of 2 s on one worker, and on four.
    assert slow.figures["reward_s"] > BATCH * GROUP * slow_parts.HOLD_S / 2
    faster = advise_on_run(tmp_path / "four", workers=4)
    assert faster.figures["step_s"] < slow.figures["step_s"] / 2, (slow, faster)
