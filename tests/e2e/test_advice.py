"""The advice on a run names its bound, and following it makes the step shorter.

Rewards are bounds of real engines; so that devices can be moved, they are emulated ones.
"""

import pytest

from benchmarks.emulated_modes import MODES, make_environment, make_overrides, write_inputs
from tests.helpers import slow_parts
from tests.helpers.emulated_runs import make_run
from tests.helpers.training_run import tail
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS, BATCH, GROUP = 4, 4, 4
# Six responses of about 200 tokens, one at a time on a replica. In real seconds a replica needs
# half of a second for all, a GPU as long for an update; an imbalance makes one of them 12 s.
EVEN = {"kind": "lognormal", "mean": 200, "sigma": 0.1, "cap": 1000}
BALANCED = {
    "sampling__response_tokens": EVEN,
    "sampling__slots": 1,
    "sampling__decode_base_s": 0.8,
    "sampling__decode_per_sequence_s": 0.0,
    "training__update_s": 500.0,
}
# By bound: the profile, and GPUs for (rollout, training) before and after the advice is followed.
IMBALANCES = {
    "training": ({"training__update_s": 12000.0}, (3, 1), (1, 3)),
    "rollout": ({"sampling__decode_base_s": 20.0}, (1, 3), (3, 1)),
}


def advise_on_run(folder, overrides, environment):
    """The advice on a run of our trainer."""
    run = runs.run_training(folder, overrides, **environment)
    assert run.returncode == 0, tail(run)
    return advise(load_run(folder / "run"))


def advise_on_rewards(folder, workers):
    """The advice on a run whose rewards take 2 s each, one after the other on each worker."""
    overrides = [
        *tiny_run.make_overrides(folder, batch=BATCH, n=GROUP),
        "actor_rollout_ref.rollout.nnodes=1",
        f"trainer.total_training_steps={STEPS}",
        f"reward.custom_reward_function.path=pkg://{slow_parts.__name__}",
        "reward.custom_reward_function.name=reward_one_by_one",
        f"reward.num_workers={workers}",
    ]
    return advise_on_run(folder, overrides, {})


def advise_on_split(folder, changes, split):
    """The advice on a run whose pools have so many emulated GPUs."""
    folder.mkdir()
    rollout, trainer = split
    cluster = make_run(
        folder,
        time_scale=2000.0,
        profile=BALANCED | changes,
        batches=STEPS + 4,
        rollout_gpus=rollout,
        trainer_gpus=trainer,
        slots=1,
    )
    write_inputs(folder, cluster)
    overrides = make_overrides(folder, cluster, MODES["ours:drained"], STEPS)
    return advise_on_run(folder, overrides, make_environment(folder))


def test_a_run_that_waits_for_rewards_is_told_so_and_gains_by_more_workers(tmp_path):
    slow = advise_on_rewards(tmp_path / "one", workers=1)
    assert slow.bound == "reward" and "give it more workers" in slow.sentence, slow.sentence
    # 16 rewards of 2 s on one worker, and on four.
    assert slow.figures["reward_s"] > BATCH * GROUP * slow_parts.HOLD_S / 2
    faster = advise_on_rewards(tmp_path / "four", workers=4)
    assert faster.figures["step_s"] < slow.figures["step_s"] / 2, (slow, faster)


@pytest.mark.parametrize("bound", IMBALANCES)
def test_a_pool_that_holds_up_the_other_is_named_and_devices_for_it_help(bound, tmp_path):
    changes, before, after = IMBALANCES[bound]
    slow = advise_on_split(tmp_path / "before", changes, before)
    assert slow.bound == bound and slow.sentence.startswith(f"{bound}-bound"), slow.sentence
    assert f"more devices for {bound}" in slow.sentence
    faster = advise_on_split(tmp_path / "after", changes, after)
    assert faster.figures["step_s"] < slow.figures["step_s"] / 2, (slow, faster)
