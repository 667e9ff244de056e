"""GRPO+ as an overlay: from both entry points, and what its variants mean to verl's loss."""

import pytest
import torch
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.utils.config import omega_conf_to_dataclass

from verl_pipeline.filters import load_filters

ENTRIES = {"one_off_pipeline": "verl_pipeline.config", "ppo_trainer": "verl.trainer.config"}


def composed(entry, variant, *overrides):
    with initialize_config_module(ENTRIES[entry], version_base=None):
        return compose(entry, [f"+grpo_plus={variant}", *overrides])


@pytest.fixture(scope="module")
def actors():
    """verl's actor configuration by variant."""
    fixed = ["actor_rollout_ref.actor.use_dynamic_bsz=True"]
    return {
        variant: omega_conf_to_dataclass(
            composed("one_off_pipeline", variant, *fixed).actor_rollout_ref.actor
        )
        for variant in ("ours", "described", "released")
    }


def loss_of(config, log_ratios, advantages):
    log_ratios = torch.tensor([log_ratios])
    value, _metrics = compute_policy_loss_vanilla(
        torch.zeros_like(log_ratios),
        log_ratios,
        torch.tensor([advantages]),
        torch.ones_like(log_ratios),
        config=config,
    )
    return float(value)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("variant", "mode"), [("ours", "drop"), ("described", "drop"), ("released", "deepcoder")]
)
def test_the_same_from_both_entry_points(entry, variant, mode):
    config = composed(entry, variant)
    actor = config.actor_rollout_ref.actor
    assert (config.algorithm.adv_estimator, config.algorithm.use_kl_in_reward) == ("grpo", False)
    assert (actor.use_kl_loss, actor.entropy_coeff, actor.loss_agg_mode) == (False, 0, "token-mean")
    assert (
        config.actor_rollout_ref.rollout.temperature,
        config.actor_rollout_ref.rollout.top_p,
    ) == (0.6, 1)
    filters = OmegaConf.to_container(config.trainer.v1.one_off_pipeline.filters)
    assert [entry.name for entry in load_filters(filters)] == ["infrastructure", "overlong"]
    assert filters[1] == {"name": "overlong", "mode": mode}


def test_an_override_behind_the_overlay_wins():
    config = composed("one_off_pipeline", "ours", "actor_rollout_ref.rollout.temperature=1.0")
    assert config.actor_rollout_ref.rollout.temperature == 1.0
    assert config.trainer.v1.one_off_pipeline.staleness == 1


ratios = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


@given(log_ratios=ratios, sign=st.sampled_from([-1.0, 1.0]))
def test_released_does_not_clip_at_all(actors, log_ratios, sign):
    # verl itself clamps the log-ratio to +-20.
    expected = -sign * torch.exp(torch.tensor(log_ratios).clamp(-20, 20)).mean()
    assert loss_of(actors["released"], log_ratios, [sign] * len(log_ratios)) == pytest.approx(
        float(expected), rel=1e-5
    )


@given(log_ratio=st.floats(-3, 3))
def test_described_clips_at_0_8_and_1_28_and_nowhere_else(actors, log_ratio):
    ratio = float(torch.exp(torch.tensor(log_ratio)))
    assert loss_of(actors["described"], [log_ratio], [1.0]) == pytest.approx(
        -min(ratio, 1.28), rel=1e-5
    )
    assert loss_of(actors["described"], [log_ratio], [-1.0]) == pytest.approx(
        max(ratio, 0.8), rel=1e-5
    )


@given(log_ratio=st.floats(-3, 3))
def test_ours_bounds_the_loss_of_a_wrong_answer_as_well(actors, log_ratio):
    ratio = float(torch.exp(torch.tensor(log_ratio)))
    assert loss_of(actors["ours"], [log_ratio], [1.0]) == pytest.approx(-min(ratio, 1.28), rel=1e-5)
    assert loss_of(actors["ours"], [log_ratio], [-1.0]) == pytest.approx(
        min(max(ratio, 0.8), 3.0), rel=1e-5
    )
