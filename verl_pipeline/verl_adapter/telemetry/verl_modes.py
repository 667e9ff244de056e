"""verl's own trainer modes, recorded in the process that is about to run one."""

from omegaconf import DictConfig
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, get_trainer_cls

from verl_pipeline.trainer.pipeline_config import load_pipeline_config
from verl_pipeline.verl_adapter.telemetry.run_target import VERL_MODES
from verl_pipeline.verl_adapter.telemetry.trainers import record_trainer


def record_verl_trainer(config: DictConfig) -> None:
    """Let verl find a subclass of its trainer under the mode's name, in this process only.

    verl's class stays as it is. ``register_trainer`` refuses a name that is taken.
    """
    mode = config.trainer.v1.trainer_mode
    if mode in VERL_MODES and load_pipeline_config(config).telemetry.enabled:
        TRAINER_REGISTRY[mode] = record_trainer(get_trainer_cls(mode))
