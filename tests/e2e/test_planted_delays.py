"""A run with slow parts: its bill has each delay under that part's own name.

A slow replica is planted twice: into a real engine, and among emulated ones, which take no time of
their own.
"""

import re

import numpy as np
import pyarrow.compute as pc
import pytest

from benchmarks.emulated_modes import MODES, make_environment, make_overrides, write_inputs
from tests.helpers import slow_parts
from tests.helpers.bills import check_bills
from tests.helpers.emulated_runs import make_run
from tests.helpers.training_run import tail
from verl_pipeline.telemetry.accounting import bill_run
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.telemetry.tails import find_slow_replicas
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MODULE = slow_parts.__name__
ROLLOUT = "actor_rollout_ref.rollout"
ENGINE = f"{ROLLOUT}.checkpoint_engine"
STEPS, BATCH = 3, 4
SLOW_EXTENSION = "tests.helpers.slow_engine.SlowExtension"  # its module imports vLLM
SLOW_REPLICA, STEP_DELAY_S = 1, 0.2
# Of a response of real engines: as many steps of its engine, each with the delay.
REAL_TOKENS = 40
SLOW = [
    f"reward.custom_reward_function.path=pkg://{MODULE}",
    "reward.custom_reward_function.name=reward_late",
    f"{ENGINE}.custom_backend_module={MODULE}",
    f"{ENGINE}.backend=late_sync",
    f"actor_rollout_ref.model.external_lib={MODULE}",
]
# By state of the trainer, how often it has the delay. v_0 is sent before step 1.
PLANTED = {"wait_reward": STEPS, "weight_sync": STEPS, "update": STEPS}
# Emulated: three responses a replica, which it decodes at once, in 2 real seconds; the slow one
# needs that much longer.
TIME_SCALE, TOKENS, TOKEN_S, SLOWNESS = 2000.0, 200, 20.0, 4.0
EVEN = {
    "sampling__response_tokens": TOKENS,
    "sampling__decode_base_s": TOKEN_S,
    "sampling__decode_per_sequence_s": 0.0,
}


def bill_trainer(folder, *overrides):
    """Seconds of the trainer by their names, of a run on policy: nothing hides a delay."""
    run = runs.run_training(
        folder,
        [
            *tiny_run.make_overrides(folder, batch=BATCH),
            f"{ROLLOUT}.nnodes=1",
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


def run_slow_engine(folder, *overrides):
    """A run with two real replicas, one of them slow; all responses have the same length."""
    run = runs.run_training(
        folder,
        [
            *tiny_run.make_overrides(folder, batch=BATCH),
            f"{ROLLOUT}.nnodes=1",
            f"{ROLLOUT}.n_gpus_per_node=2",
            f"{ROLLOUT}.max_model_len=240",
            f"{ROLLOUT}.ignore_eos=True",
            f"data.max_response_length={REAL_TOKENS}",
            f"+{ROLLOUT}.engine_kwargs.vllm.worker_extension_cls={SLOW_EXTENSION}",
            f"trainer.total_training_steps={STEPS}",
            *overrides,
        ],
        TESTS_SLOW_REPLICA=str(SLOW_REPLICA),
        TESTS_STEP_DELAY_S=str(STEP_DELAY_S),
    )
    assert run.returncode == 0, tail(run)
    recorded = load_run(folder / "run")
    check_bills(recorded)
    (bill,) = [bill for bill in bill_run(recorded) if bill.pool is Pool.TRAINER]
    return recorded, bill


def measure_excess(recorded):
    """Seconds that a trajectory takes longer on the slow replica than on the other, first token to
    last, by the medians."""
    table = recorded.trajectories.filter(pc.field("trained").is_valid())
    seconds = pc.subtract(table["generated"], table["first_token"]).to_numpy()
    names = np.array(table["replica"].to_pylist())
    assert set(names) == {"replica 0", "replica 1"}
    return np.median(seconds[names == "replica 1"]) - np.median(seconds[names == "replica 0"])


def test_a_slow_engine_is_found_by_its_name_and_its_delay_within_a_tenth(tmp_path):
    recorded, bill = run_slow_engine(tmp_path, "trainer.v1.one_off_pipeline.staleness=0")
    planted = STEPS * REAL_TOKENS * STEP_DELAY_S
    assert bill.causes["slow replica"] == pytest.approx(planted, rel=0.1), bill
    a_trajectory = (REAL_TOKENS - 1) * STEP_DELAY_S
    assert measure_excess(recorded) == pytest.approx(a_trajectory, rel=0.1)
    sentence = advise(recorded).sentence
    assert sentence.startswith(f"rollout-bound by replica {SLOW_REPLICA} ("), sentence


def test_past_the_barrier_a_slow_engine_is_found_too(tmp_path):
    pipeline = "trainer.v1.one_off_pipeline"
    recorded, bill = run_slow_engine(tmp_path, f"{pipeline}.weight_sync_mode=rolling")
    a_trajectory = (REAL_TOKENS - 1) * STEP_DELAY_S
    assert measure_excess(recorded) == pytest.approx(a_trajectory, rel=0.1)
    # Once the other one has ended its share of a batch, the trainer waits for this one alone.
    waits = bill.seconds["wait_rollout"]
    assert waits / 2 < bill.causes["slow replica"] <= waits, bill
    sentence = advise(recorded).sentence
    assert sentence.startswith(f"rollout-bound by replica {SLOW_REPLICA} ("), sentence
    assert list(find_slow_replicas(recorded)) == [f"replica {SLOW_REPLICA}"]


def test_a_slow_replica_is_found_by_its_name_and_its_delay_within_a_tenth(tmp_path):
    slow = {"slow_replicas": {1: SLOWNESS}}
    cluster = make_run(tmp_path, time_scale=TIME_SCALE, profile=EVEN, batches=STEPS + 4, **slow)
    write_inputs(tmp_path, cluster)
    overrides = make_overrides(tmp_path, cluster, MODES["ours:on_policy"], STEPS)
    run = runs.run_training(tmp_path, overrides, **make_environment(tmp_path))
    assert run.returncode == 0, tail(run)
    recorded = load_run(tmp_path / "run")
    check_bills(recorded)
    (bill,) = [bill for bill in bill_run(recorded) if bill.pool is Pool.TRAINER]
    planted = STEPS * (SLOWNESS - 1) * TOKENS * TOKEN_S / TIME_SCALE
    assert bill.causes["slow replica"] == pytest.approx(planted, rel=0.1), bill
    sentence = advise(recorded).sentence
    named = re.search(r"^rollout-bound by replica 1 \((\S+) times the others' time", sentence)
    assert named and float(named[1]) == pytest.approx(SLOWNESS, rel=0.1), sentence
