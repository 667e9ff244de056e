"""What the trainer works out by itself."""

import pytest
from omegaconf import OmegaConf

from tests.helpers.thinned import thin_out, thin_out_rows
from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.verl_adapter.settings.derived_settings import (
    AGENT_LOOP_MANAGER,
    GLOO_MODULE,
    NARROWING_MODULE,
    derive_settings,
    describe_correction,
)
from verl_pipeline.verl_adapter.weights.weight_extension import EXTENSION, EXTENSION_FIELD

ROLLOUT = "actor_rollout_ref.rollout"
FIELDS = "trainer.v1.one_off_pipeline"


def derived(config):
    return {
        entry.field: entry.value for entry in derive_settings(config, load_pipeline_config(config))
    }


def test_from_the_stock_configuration_only_mode_and_pools_are_needed(composed):
    config = composed()
    found = derived(config)
    assert found["actor_rollout_ref.hybrid_engine"] is False
    assert found[f"{ROLLOUT}.checkpoint_engine.backend"] == "gloo"
    assert found[f"{ROLLOUT}.checkpoint_engine.custom_backend_module"] == GLOO_MODULE
    assert found[f"{ROLLOUT}.agent.agent_loop_manager_class"] == AGENT_LOOP_MANAGER
    for name, value in found.items():
        assert OmegaConf.select(config, name) == value


@pytest.mark.parametrize(
    ("overrides", "expected"),
    thin_out_rows(
        [
            ([], EXTENSION),
            ([f"{FIELDS}.weight_check.fingerprint_syncs=0"], EXTENSION),
            ([f"{FIELDS}.weight_check={{fingerprint_syncs: 0, fingerprint_every: 0}}"], None),
            ([f"{ROLLOUT}.name=sglang"], None),
        ],
        keep=2,
    ),
)
def test_vllms_workers_tell_what_they_hold_if_it_is_looked_at(composed, overrides, expected):
    assert derived(composed(*overrides)).get(EXTENSION_FIELD) == expected


def test_on_gpus_the_backend_is_nccl_and_gloo_stays_away(composed):
    config = composed("trainer.device=cuda")
    found = derived(config)
    engine = f"{ROLLOUT}.checkpoint_engine"
    assert found[f"{engine}.backend"] == "nccl"
    assert found[f"{engine}.engine_kwargs.nccl.rollout_dtype"] == "float32"  # the CPU overlay's
    assert found[f"{engine}.custom_backend_module"] == NARROWING_MODULE
    assert not any("gloo" in str(entry) for entry in found.items())


def test_what_the_user_chose_stands(composed):
    config = composed(
        f"{ROLLOUT}.checkpoint_engine.backend=nixl",
        f"+{ROLLOUT}.agent.agent_loop_manager_class=mine.Manager",
        f"+{EXTENSION_FIELD}=mine.Extension",
    )
    found = derived(config)
    assert config.actor_rollout_ref.rollout.checkpoint_engine.backend == "nixl"
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class == "mine.Manager"
    assert OmegaConf.select(config, EXTENSION_FIELD) == "mine.Extension"
    assert set(found) == {
        "actor_rollout_ref.hybrid_engine",
        "algorithm.rollout_correction.rollout_is",
        f"{ROLLOUT}.checkpoint_engine.engine_kwargs.nixl.rollout_dtype",
        f"{ROLLOUT}.checkpoint_engine.custom_backend_module",
        f"{ROLLOUT}.disable_log_stats",
    }


@pytest.mark.parametrize("backend", thin_out(["gloo", "nccl", "nixl"], keep=4))
@pytest.mark.parametrize(
    "override",
    [
        f"{ROLLOUT}.dtype=auto",
        f"{ROLLOUT}.quantization=fp8",
        "actor_rollout_ref.actor.qat.enable=True",
        "actor_rollout_ref.actor.fsdp_config.qat.enable=True",
    ],
)
def test_weights_of_another_precision_travel_as_the_trainer_holds_them(composed, backend, override):
    found = derived(composed(f"{ROLLOUT}.checkpoint_engine.backend={backend}", override))
    assert not [name for name in found if name.endswith("rollout_dtype")]
    assert f"{ROLLOUT}.checkpoint_engine.custom_backend_module" in found


def test_an_engine_that_casts_is_told_no_dtype(composed):
    engine = f"{ROLLOUT}.checkpoint_engine"
    found = derived(composed(f"{engine}.backend=mooncake"))
    assert [name for name in found if "checkpoint_engine" in name] == [
        f"{engine}.custom_backend_module"
    ]


@pytest.mark.parametrize("backend", ["delta_sharded", "naive_of_mine"])
def test_engines_that_keep_nothing_or_are_unknown_stay_as_they_are(composed, backend):
    found = derived(composed(f"{ROLLOUT}.checkpoint_engine.backend={backend}"))
    assert not [name for name in found if "checkpoint_engine" in name]


def test_an_engine_of_the_users_is_told_nothing(composed):
    engine = f"{ROLLOUT}.checkpoint_engine"
    found = derived(composed(f"{engine}.backend=nccl", f"{engine}.custom_backend_module=mine"))
    assert not [name for name in found if "checkpoint_engine" in name]


@pytest.mark.parametrize(("staleness", "rollout_is"), [(0, None), (1, "token")])
def test_auto_means_token_weights_at_staleness_1_and_nothing_at_0(composed, staleness, rollout_is):
    config = composed(f"{FIELDS}.staleness={staleness}")
    derived(config)
    assert config.algorithm.rollout_correction.rollout_is == rollout_is
    assert ("token-level" in describe_correction(config)) == bool(rollout_is)


def test_weights_need_the_rollouts_log_probs(composed):
    config = composed(f"{ROLLOUT}.calculate_log_probs=False")
    assert derived(config)[f"{ROLLOUT}.calculate_log_probs"] is True


def test_auto_beside_a_correction_of_ones_own_is_refused(composed):
    with pytest.raises(ConfigError, match="correction=as_configured"):
        derived(composed("algorithm.rollout_correction.rollout_is=sequence"))


def test_as_configured_leaves_the_correction_alone(composed):
    config = composed(
        f"{FIELDS}.correction=as_configured", "algorithm.rollout_correction.bypass_mode=True"
    )
    derived(config)
    assert config.algorithm.rollout_correction.rollout_is is None
    assert describe_correction(config).startswith("bypass")
