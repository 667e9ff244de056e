"""LoRA with separate pools: the adapter is merged into the weights that are sent.

A checkpoint engine sends full weights only, and verl 0.9.1 hands it the frozen base unless
``model.lora.merge`` is set: the rollout pool would sample from the base model for the whole run.

Invariant: LoRA in a form whose weights do not reach the rollout pool is refused before anything is
loaded.
"""

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError, DerivedSetting

MODEL = "actor_rollout_ref.model"
MERGE = f"{MODEL}.lora.merge"
MEGATRON = "actor_rollout_ref.actor.megatron"
# The training engines that can merge an adapter, and the field of each that asks for one.
_RANKS = {"fsdp": "lora_rank", "fsdp2": "lora_rank", "megatron": "lora.rank"}
_ADAPTERS = {"lora_rank": "lora_adapter_path", "lora.rank": "lora.adapter_path"}


def derive_lora(config: DictConfig) -> list[DerivedSetting]:
    """``model.lora.merge`` if the actor trains a LoRA.

    Raises:
        ConfigError: the LoRA is asked for in a way that trains none, or that no weight sync sends.
    """
    asked = [name for name in (*_ADAPTERS, *_ADAPTERS.values()) if _is_asked(config, name)]
    if not asked:
        return []
    first = f"{MODEL}.{asked[0]}={OmegaConf.select(config, f'{MODEL}.{asked[0]}')}"
    strategy = str(config.actor_rollout_ref.actor.strategy)
    rank = _RANKS.get(strategy)
    if rank is None:
        raise ConfigError(
            f"{first}: verl trains no LoRA with actor.strategy={strategy}, or sends none; use "
            "fsdp, fsdp2 or megatron"
        )
    for name in asked:
        if name not in (rank, _ADAPTERS[rank]):
            raise ConfigError(
                f"{MODEL}.{name}={OmegaConf.select(config, f'{MODEL}.{name}')}: "
                f"actor.strategy={strategy} does not read it, but verl's trainer and vLLM do; "
                f"remove it and set {MODEL}.{rank}"
            )
    if not _is_asked(config, rank):
        raise ConfigError(
            f"{first}: verl loads no adapter while {MODEL}.{rank} is 0; set it to the adapter's "
            "rank"
        )
    _refuse_unsent_lora(config, first, strategy)
    if OmegaConf.select(config, MERGE):
        return []
    reason = "the pools are separate; otherwise the frozen base would be sent without the adapter"
    return [DerivedSetting(MERGE, True, reason)]


def _is_asked(config: DictConfig, name: str) -> bool:
    value = OmegaConf.select(config, f"{MODEL}.{name}")
    return value > 0 if isinstance(value, int | float) else bool(value)


def _refuse_unsent_lora(config: DictConfig, first: str, strategy: str) -> None:
    backend = f"{ROLLOUT}.checkpoint_engine.backend"
    if OmegaConf.select(config, backend) == "delta_sharded":
        raise ConfigError(
            f"{first}: {backend}=delta_sharded sends no LoRA; leave the backend to us or set nccl"
        )
    if strategy == "megatron" and (
        OmegaConf.select(config, f"{MEGATRON}.vanilla_mbridge")
        or not OmegaConf.select(config, f"{MEGATRON}.use_mbridge")
    ):
        raise ConfigError(
            f"{first}: LoRA needs Megatron-Bridge; set {MEGATRON}.use_mbridge=True and "
            f"{MEGATRON}.vanilla_mbridge=False"
        )
    for engine in ("vllm", "sglang"):
        field = f"{ROLLOUT}.engine_kwargs.{engine}.enable_lora"
        if OmegaConf.select(config, field):
            raise ConfigError(
                f"{field}=True: the rollout pool gets merged weights, for an engine without LoRA; "
                "remove it"
            )
