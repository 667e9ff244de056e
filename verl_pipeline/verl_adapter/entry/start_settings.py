"""Settings that have to be derived where the command was started, before Ray and TransferQueue."""

from omegaconf import DictConfig

from verl_pipeline.trainer.pipeline_config import TRAINER_MODE, DerivedSetting
from verl_pipeline.verl_adapter.checks.queue_capacity import derive_capacity
from verl_pipeline.verl_adapter.rewards.reward_settings import apply_settings
from verl_pipeline.verl_adapter.settings.absolute_paths import derive_absolute_paths
from verl_pipeline.verl_adapter.telemetry.run_target import derive_telemetry


def derive_start_settings(config: DictConfig) -> list[DerivedSetting]:
    """Complete ``config`` in place, in any trainer mode.

    Returns:
        The settings that were changed.

    Raises:
        ConfigError: as :func:`.checks.queue_capacity.derive_capacity`.
    """
    wanted = derive_absolute_paths(config) + derive_telemetry(config)
    if config.trainer.v1.trainer_mode == TRAINER_MODE:
        wanted += derive_capacity(config)
    return apply_settings(config, wanted)
