"""Changes of the work: only what is given changes, and what cannot be is refused."""

import pytest

from tests.helpers.planner_cases import make_small
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.work_changes import WorkChanges, change_work


def test_only_what_is_given_changes():
    profile = make_small()
    assert change_work(profile, WorkChanges()) == profile
    changed = change_work(
        profile, WorkChanges(prompts=7, response_mean=50.0, prompt_mean=20.0, reward_s=3.0)
    )
    assert (changed.sampling.prompts, changed.sampling.samples) == (7, profile.sampling.samples)
    lengths = changed.sampling.response_tokens
    assert (lengths.mean, lengths.sigma, lengths.cap) == (50.0, 0.8, 1000)
    assert changed.sampling.prompt_tokens.largest == 20.0
    assert changed.reward.seconds.expectation == 3.0
    assert changed.reward.workers == profile.reward.workers
    assert changed.training.gpus == profile.training.gpus


@pytest.mark.parametrize(
    "training",
    [
        {"gpus": 2, "update_s": 30.0, "log_prob_s": 5.0},
        {"gpus": 2, "parameters": 1e9, "flops_per_gpu": 1e12, "utilisation": 0.5},
    ],
)
def test_a_token_takes_the_trainer_as_long_as_before(training):
    profile = make_small(training=training)
    changed = change_work(profile, WorkChanges(prompts=7, response_mean=50.0))
    before, after = (
        p.training.compute_seconds(1000.0, p.sampling.mean_tokens, 2) for p in (profile, changed)
    )
    assert after == pytest.approx(before)


def test_lengths_that_were_measured_need_all_three():
    measured = make_small(sampling__response_tokens={"kind": "empirical", "values": [3, 9]})
    with pytest.raises(ProfileError, match="lengths are empirical.*together"):
        change_work(measured, WorkChanges(response_mean=50.0))
    whole = WorkChanges(response_mean=50.0, response_sigma=0.5, response_limit=80.0)
    lengths = change_work(measured, whole).sampling.response_tokens
    assert (lengths.kind, lengths.values, lengths.largest) == ("lognormal", (), 80.0)


def test_more_trajectories_than_can_be_simulated_are_refused():
    with pytest.raises(ProfileError, match="trajectories a batch"):
        change_work(make_small(), WorkChanges(prompts=60_000, samples=8))
