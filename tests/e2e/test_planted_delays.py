"""A real run with slow parts: its bill has each delay under that part's own name."""

import pytest

from tests.helpers import slow_parts
from tests.helpers.bills import check_bills
from tests.helpers.training_run import tail
from verl_pipeline.telemetry.accounting import bill_run
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MODULE = slow_parts.__name__
ENGINE = "actor_rollout_ref.rollout.checkpoint_engine"
STEPS, BATCH = 3, 4
SLOW = [
    f"reward.custom_reward_function.path=pkg://{MODULE}",
    "reward.custom_reward_function.name=reward_late",
    f"{ENGINE}.custom_backend_module={MODULE}",
    f"{ENGINE}.backend=late_sync",
    f"actor_rollout_ref.model.external_lib={MODULE}",
]
# By state of the trainer, how often it has the delay. v_0 is sent before step 1.
PLANTED = {"wait_reward": STEPS, "weight_sync": STEPS, "update": STEPS}


def bill_trainer(folder, *overrides):
    """Seconds of the trainer by their names, of a run on policy: nothing hides a delay."""
    run = runs.run_training(
        folder,
        [
            *tiny_run.make_overrides(folder, batch=BATCH),
            "actor_rollout_ref.rollout.nnodes=1",
            f"trainer.total_training_steps={STEPS}",
            "trainer.v1.one_off_pipeline.staleness=0",
            *overrides,
        ],
    )
    assert run.returncode == 0, tail(run)
    recorded = load_run(folder / "run")
    check_bills(recorded)
    (bill,) = [bill for bill in bill_run(recorded) if bill.pool is Pool.TRAINER]
    return bill.seconds


def test_each_delay_is_found_under_its_own_name_within_a_tenth(tmp_path, monkeypatch):
    plain = bill_trainer(tmp_path / "plain")
    monkeypatch.setenv(slow_parts.UPDATE_IS_LATE, "1")
    slow = bill_trainer(tmp_path / "slow", *SLOW)
    for state, times in PLANTED.items():
        planted = times * slow_parts.DELAY_S
        assert slow[state] - plain[state] == pytest.approx(planted, rel=0.1), (state, plain, slow)
    others = plain.keys() - PLANTED.keys() - {"start"}
    unnamed = sum(slow[state] - plain[state] for state in others)
    assert unnamed < slow_parts.DELAY_S, (plain, slow)
