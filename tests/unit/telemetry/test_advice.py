"""The advice: it names what a step hangs on, and acting on it makes the simulated step shorter."""

import re
from dataclasses import replace

import pytest

from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.run_folder import load_run

BASE = MadeUpRun(steps=6, prompts=16, group=8, spread=0.3)
TRAINING = replace(BASE, phases={"update_actor": 60.0})
ROLLOUT = replace(BASE, load_s=0.002, phases={"update_actor": 6.0}, trainer_devices=4)
REWARD = replace(BASE, reward_s=30.0)


def play(folder, run):
    """The mean step in which the pipeline is full, and the advice."""
    story = write_run(folder, run)
    steady = story.step_s[1:-1]
    return sum(steady) / len(steady), advise(load_run(folder))


@pytest.mark.parametrize(
    ("run", "bound", "words"),
    [
        (
            TRAINING,
            "training",
            ["rollout waits for the trainer", "from rollout to training", "3 + 1"],
        ),
        (ROLLOUT, "rollout", ["trainer waits for rollout", "from training to rollout", "1 + 5"]),
    ],
    ids=["training", "rollout"],
)
def test_acting_on_a_change_of_the_split_gives_about_the_predicted_step(
    tmp_path, run, bound, words
):
    before, advice = play(tmp_path / "before", run)
    assert advice.bound == bound
    assert all(word in advice.sentence for word in [f"{bound}-bound", *words])
    devices = int(advice.figures["rollout_devices"])
    changed = replace(
        run,
        trainer_devices=int(advice.figures["trainer_devices"]),
        rollout_devices=devices,
        replicas=devices,
    )
    after, _ = play(tmp_path / "after", changed)
    assert after < 0.8 * before
    assert after == pytest.approx(advice.figures["predicted_step_s"], rel=0.15)
    assert advice.assumptions


def test_a_short_runs_last_batch_does_not_shorten_the_wait_for_the_trainer(tmp_path):
    """In a step before the last, the pool has nothing left to generate for the rest of the run."""
    _, short = play(tmp_path / "short", replace(TRAINING, steps=4))
    _, long = play(tmp_path / "long", replace(TRAINING, steps=12))
    shares = [
        int(re.search(r"waits for the trainer (\d+) %", advice.sentence)[1])
        for advice in (short, long)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=5), (short.sentence, long.sentence)


def test_a_slow_reward_is_advised_on_and_no_split_offered(tmp_path):
    before, advice = play(tmp_path / "before", REWARD)
    assert advice.bound == "reward" and "make the reward function faster" in advice.sentence
    assert "trainer_devices" not in advice.figures
    after, _ = play(tmp_path / "after", replace(REWARD, reward_s=0.0))
    assert after == pytest.approx(before - advice.figures["reward_s"], rel=0.1)


def test_a_reward_with_too_few_workers_is_a_slow_reward(tmp_path):
    run = replace(BASE, reward_s=1.0, reward_workers=2)
    before, advice = play(tmp_path / "before", run)
    assert advice.bound == "reward"
    assert play(tmp_path / "after", replace(run, reward_workers=16))[0] < 0.7 * before


def test_balanced_pools_are_left_alone(tmp_path):
    _, advice = play(tmp_path, replace(BASE, phases={"update_actor": 21.0}))
    assert advice.bound == "balanced"
    assert "balanced, nothing to gain by moving devices" in advice.sentence
    assert not advice.assumptions


def test_a_split_that_is_best_already_is_kept(tmp_path):
    run = replace(BASE, trainer_devices=1, rollout_devices=1, replicas=1)
    _, advice = play(tmp_path, run)
    assert advice.bound == "rollout" and "no split of the devices beats 1 + 1" in advice.sentence


def test_a_slow_replica_is_named_before_any_split(tmp_path):
    run = replace(BASE, slow_replicas={1: 2.5}, spread=0.05)
    before, advice = play(tmp_path / "before", run)
    assert advice.bound == "rollout" and "trainer waits for it alone" in advice.sentence
    assert "replica 1 (2.5 times the others' time per token)" in advice.sentence
    assert "trainer_devices" not in advice.figures
    assert play(tmp_path / "after", replace(run, slow_replicas={}))[0] < 0.7 * before


@pytest.mark.parametrize("change", [{"staleness": 0}, {"mode": "sync"}])
def test_pools_that_take_turns_are_told_what_overlap_would_give(tmp_path, change):
    run = replace(BASE, phases={"update_actor": 22.0}, load_s=0.0001, token_s=0.02, **change)
    before, advice = play(tmp_path / "before", run)
    assert "one after the other" in advice.sentence
    if "trainer_devices" not in advice.figures:  # shared devices that are better shared
        assert "would gain nothing" in advice.sentence
        return
    devices = int(advice.figures["rollout_devices"])
    overlapped = replace(
        run,
        mode="one_off_pipeline",
        staleness=1,
        trainer_devices=int(advice.figures["trainer_devices"]),
        rollout_devices=devices,
        replicas=devices,
    )
    after, _ = play(tmp_path / "after", overlapped)
    assert after < before
    assert after == pytest.approx(advice.figures["predicted_step_s"], rel=0.15)


def test_long_weight_syncs_are_mentioned(tmp_path):
    _, advice = play(tmp_path, replace(BASE, sync_s=20.0))
    assert "weight syncs, checkpoints and validations take 20.0 s a step" in advice.sentence


def test_nothing_is_advised_before_a_step_is_complete(tmp_path):
    write_run(tmp_path, replace(BASE, killed_at=30.0))
    advice = advise(load_run(tmp_path))
    assert advice.bound is None and "no step is complete yet" in advice.sentence
