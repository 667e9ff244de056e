"""Modes past the barrier that cannot work are refused by name, with what can."""

import pytest

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    ConfigError,
    OneOffPipelineConfig,
    load_pipeline_config,
)
from verl_pipeline.verl_adapter.checks.check_list import check_pipelined_config
from verl_pipeline.verl_adapter.checks.dial_checks import check_staleness, describe_dial


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr("verl.utils.device.get_device_name", lambda: "cpu")


def set_mode(mode, staleness=2):
    return [f"{PIPELINE_KEY}.weight_sync_mode={mode}", f"{PIPELINE_KEY}.staleness={staleness}"]


@pytest.mark.parametrize("mode", ["rolling", "in_flight"])
def test_a_mode_that_works_passes(composed, mode):
    check_pipelined_config(composed(*set_mode(mode)))


@pytest.mark.parametrize(
    "overrides, message",
    [
        (set_mode("drained"), "staleness=2: must be 0 or 1 with weight_sync_mode=drained"),
        (set_mode("rolling", 0), "staleness=0: must be 1 to 8 with weight_sync_mode=rolling"),
        (set_mode("in_flight", 9), "staleness=9: must be 1 to 8 with weight_sync_mode=in_flight"),
        (set_mode("flying"), "weight_sync_mode=flying: must be one of drained, rolling, in_flight"),
        (
            [*set_mode("in_flight"), f"{ROLLOUT}.name=sglang"],
            "weight_sync_mode=in_flight: needs actor_rollout_ref.rollout.name=vllm",
        ),
        ([*set_mode("in_flight"), f"{PIPELINE_KEY}.kv=drop"], "kv=drop: must be keep or recompute"),
        ([*set_mode("rolling"), f"{PIPELINE_KEY}.slots=0"], "slots=0: must be 1 or more, or null"),
        (
            [*set_mode("rolling"), f"{PIPELINE_KEY}.min_replicas=9"],
            "min_replicas=9: the rollout pool has 1 from the start",
        ),
        (
            [
                *set_mode("rolling"),
                f"{PIPELINE_KEY}.max_replicas=1",
                f"{ROLLOUT}.n_gpus_per_node=2",
            ],
            "max_replicas=1: the rollout pool has 2 from the start",
        ),
        (
            [*set_mode("rolling"), f"{ROLLOUT}.checkpoint_engine.backend=delta_sharded"],
            "backend=delta_sharded: does not keep weights on the rollout nodes",
        ),
        (
            [*set_mode("rolling"), f"{ROLLOUT}.router_config_path=router.yaml"],
            "router_config_path: with trainer.v1.one_off_pipeline.weight_sync_mode=rolling the",
        ),
        (
            [f"{PIPELINE_KEY}.val_beside_training=true", "trainer.test_freq=1"],
            "val_beside_training=true with trainer.test_freq=1: each validation would have to end",
        ),
    ],
)
def test_what_cannot_work_is_refused(composed, overrides, message):
    with pytest.raises(ConfigError) as refusal:
        check_pipelined_config(composed(*overrides))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "staleness, last_step, is_refused", [(4, 3, True), (4, 4, False), (1, 0, False)]
)
def test_a_lead_that_the_run_never_reaches_is_refused(staleness, last_step, is_refused):
    settings = OneOffPipelineConfig(weight_sync_mode="in_flight", staleness=staleness)
    if is_refused:
        with pytest.raises(ConfigError, match="staleness=4: the run has only 3 batches"):
            check_staleness(settings, last_step)
    else:
        check_staleness(settings, last_step)


def test_rolling_with_one_replica_says_what_it_cannot_gain(composed):
    for devices, expected in [(1, True), (2, False)]:
        config = composed(*set_mode("rolling"), f"{ROLLOUT}.n_gpus_per_node={devices}")
        lines = list(describe_dial(config, load_pipeline_config(config)))
        assert lines[0] == "weights rolling, staleness 2"
        assert any("with one replica" in line for line in lines) == expected
