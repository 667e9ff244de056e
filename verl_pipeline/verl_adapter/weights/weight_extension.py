"""Where our extension of vLLM's worker stands in verl's configuration. Imports no vLLM."""

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    DerivedSetting,
    OneOffPipelineConfig,
)

EXTENSION = "verl_pipeline.verl_adapter.weights.weight_reader.WeightReadingExtension"
EXTENSION_FIELD = f"{ROLLOUT}.engine_kwargs.vllm.worker_extension_cls"


def derive_weight_reader(
    config: DictConfig, settings: OneOffPipelineConfig
) -> list[DerivedSetting]:
    """vLLM's workers tell what they hold, unless the user has an extension of theirs."""
    check = settings.weight_check
    if (
        OmegaConf.select(config, f"{ROLLOUT}.name") != "vllm"
        or not (check.fingerprint_syncs or check.fingerprint_every)
        or OmegaConf.select(config, EXTENSION_FIELD) is not None
    ):
        return []
    reason = f"{PIPELINE_KEY}.weight_check: the weights that vLLM holds are read"
    return [DerivedSetting(EXTENSION_FIELD, EXTENSION, reason)]
