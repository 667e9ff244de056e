"""Where a run records, what it says of itself, and the settings of verl that recording needs.

Invariant: everything follows from the configuration, so that each process finds it by itself.
"""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.machine import read_package_versions
from verl_pipeline.telemetry.recorder import RunTarget
from verl_pipeline.telemetry.records import FORMAT, Header
from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    TRAINER_MODE,
    DerivedSetting,
    load_pipeline_config,
)
from verl_pipeline.verl_adapter.checks.config_checks import (
    count_replica_devices,
    count_trainer_ranks,
)

# verl's modes, whose trainers and agent loops know nothing of recording.
VERL_MODES = ("sync", "colocate_async", "separate_async")
SEPARATE_MODES = (TRAINER_MODE, "separate_async")
MANAGER = f"{ROLLOUT}.agent.agent_loop_manager_class"
RECORDING_MANAGER = "verl_pipeline.verl_adapter.telemetry.agent_loops.RecordingManager"
STATISTICS = f"{ROLLOUT}.disable_log_stats"


def make_target(config: DictConfig) -> RunTarget:
    """The run's target, for any of its processes; ``header`` as far as the configuration tells it,
    without ``settings``.
    """
    settings = load_pipeline_config(config).telemetry
    rollout, mode = config.actor_rollout_ref.rollout, str(config.trainer.v1.trainer_mode)
    trainers = count_trainer_ranks(config)
    is_separate = mode in SEPARATE_MODES
    pipeline = load_pipeline_config(config) if mode == TRAINER_MODE else None
    slots = rollout.max_num_seqs
    if pipeline is not None and not pipeline.dial.has_barrier:
        slots = pipeline.slots or slots
    rollouts = rollout.nnodes * rollout.n_gpus_per_node if is_separate else trainers
    header = Header(
        format=FORMAT,
        role="",
        host="",
        pid=0,
        started=0.0,
        run_name=f"{config.trainer.project_name}/{config.trainer.experiment_name}",
        mode=mode,
        staleness=pipeline.most_staleness if pipeline is not None else None,
        trainer_devices=trainers,
        rollout_devices=rollouts,
        shares_devices=not is_separate,
        replicas=max(1, rollouts // count_replica_devices(config)),
        slots=slots,
        group_size=rollout.n,
        batch_size=config.data.train_batch_size,
        first_step=1,
        last_step=int(config.trainer.total_training_steps or 0),
        versions=read_package_versions(),
        weight_sync_mode=pipeline.weight_sync_mode if pipeline is not None else None,
        auto_staleness=pipeline is not None and pipeline.is_auto,
    )
    folder = os.path.abspath(str(Path(config.trainer.default_local_dir).expanduser()))
    return RunTarget(folder if settings.enabled else None, header, settings.texts_per_step)


def describe_settings(config: DictConfig) -> dict[str, Any]:
    """The whole configuration, resolved, for the driver's header."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def derive_telemetry(config: DictConfig) -> list[DerivedSetting]:
    """Settings of verl that the run's telemetry needs, unless the user chose agent loops."""
    if not load_pipeline_config(config).telemetry.enabled:
        return []
    reason = f"{PIPELINE_KEY}.telemetry reads them"
    derived = [DerivedSetting(STATISTICS, False, reason)]
    if config.trainer.v1.trainer_mode in VERL_MODES and OmegaConf.select(config, MANAGER) is None:
        reason = f"{PIPELINE_KEY}.telemetry follows trajectories"
        derived.append(DerivedSetting(MANAGER, RECORDING_MANAGER, reason))
    return derived
