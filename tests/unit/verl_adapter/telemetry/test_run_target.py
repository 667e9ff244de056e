"""What recording needs of verl's settings, in each mode, and where it goes."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from verl_pipeline.verl_adapter.settings.derived_settings import AGENT_LOOP_MANAGER
from verl_pipeline.verl_adapter.telemetry.run_target import (
    MANAGER,
    RECORDING_MANAGER,
    STATISTICS,
    derive_telemetry,
    make_target,
)

ENABLED = "trainer.v1.one_off_pipeline.telemetry.enabled"


def load(*overrides):
    with initialize_config_module("verl_pipeline.config", version_base=None):
        return compose("one_off_pipeline", overrides=list(overrides))


def derive(*overrides):
    return {entry.field: entry.value for entry in derive_telemetry(load(*overrides))}


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_verls_modes_get_our_agent_loops_unless_the_user_has_some(mode):
    chosen = f"trainer.v1.trainer_mode={mode}"
    assert derive(chosen) == {STATISTICS: False, MANAGER: RECORDING_MANAGER}
    assert derive(chosen, f"+{MANAGER}=my.Manager") == {STATISTICS: False}
    assert derive(chosen, f"{ENABLED}=False") == {}


@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync_filtered"])
def test_our_modes_have_agent_loops_that_record(mode):
    assert derive(f"trainer.v1.trainer_mode={mode}") == {STATISTICS: False}
    module, _, name = AGENT_LOOP_MANAGER.rpartition(".")
    assert module and name


def test_the_header_says_who_shares_devices():
    pools = ["trainer.n_gpus_per_node=4", "actor_rollout_ref.rollout.nnodes=2"]
    pools += ["actor_rollout_ref.rollout.n_gpus_per_node=8"]
    pools += ["actor_rollout_ref.rollout.tensor_model_parallel_size=2"]
    header = make_target(load(*pools)).header
    assert (header.trainer_devices, header.rollout_devices, header.replicas) == (4, 16, 8)
    assert not header.shares_devices and header.staleness == 1
    header = make_target(load("trainer.v1.trainer_mode=sync", *pools)).header
    assert (header.trainer_devices, header.rollout_devices, header.replicas) == (4, 4, 2)
    assert header.shares_devices and header.staleness is None


def test_records_lie_in_the_runs_folder():
    target = make_target(load("trainer.default_local_dir=runs/one"))
    assert target.folder == str(Path.cwd() / "runs/one")
    assert make_target(load(f"{ENABLED}=False")).folder is None
