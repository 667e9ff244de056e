"""Settings that follow from the mode, so that a user only adds a mode and two pool sizes.

Invariant: a setting changes only where the mode leaves no choice or the user kept verl's default.
Every change is returned with its reason, to be printed.
"""

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    ConfigError,
    DerivedSetting,
    OneOffPipelineConfig,
)
from verl_pipeline.verl_adapter.rewards.reward_settings import (
    MANAGER,
    apply_settings,
    derive_reward_check,
    derive_reward_deadlines,
    derive_sandbox,
)
from verl_pipeline.verl_adapter.settings.absolute_paths import derive_absolute_paths
from verl_pipeline.verl_adapter.settings.lora_settings import derive_lora
from verl_pipeline.verl_adapter.telemetry.run_target import derive_telemetry
from verl_pipeline.verl_adapter.weights.weight_extension import derive_weight_reader

GLOO_MODULE = "verl_pipeline.verl_adapter.weights.checkpoint_engine"
NARROWING_MODULE = "verl_pipeline.verl_adapter.weights.narrowing_checkpoint_engines"
# By checkpoint engine, the module that makes it send weights in the rollout's dtype, and keep them
# in host memory on arrival. verl's others cast by themselves.
NARROWING_MODULES = {
    "gloo": GLOO_MODULE,
    "nccl": NARROWING_MODULE,
    "nixl": NARROWING_MODULE,
    "mooncake": NARROWING_MODULE,
}
AGENT_LOOP_MANAGER = "verl_pipeline.verl_adapter.rollout.agent_loop.PipelineAgentLoopManager"
CORRECTION = "algorithm.rollout_correction"


def derive_settings(config: DictConfig, settings: OneOffPipelineConfig) -> list[DerivedSetting]:
    """Complete ``config`` in place for one-off pipelining.

    Returns:
        The settings that were changed, those of the off-policy correction included.

    Raises:
        ConfigError: ``correction=auto`` although the user configured a correction, or settings of
            the code reward that contradict others, or a LoRA that cannot reach the rollout pool.
    """
    engine = f"{ROLLOUT}.checkpoint_engine"
    # Our entry point has made them absolute where the command was started; verl's has not.
    wanted = derive_absolute_paths(config)
    wanted.append(
        DerivedSetting("actor_rollout_ref.hybrid_engine", False, "the pools are separate")
    )
    backend = OmegaConf.select(config, f"{engine}.backend")
    if backend == "naive":
        device = config.trainer.device
        backend = "gloo" if device == "cpu" else "nccl"
        reason = f"the pools are separate; device {device}"
        wanted.append(DerivedSetting(f"{engine}.backend", backend, reason))
    if backend in NARROWING_MODULES:
        wanted += _derive_engine_settings(config, backend, settings)
    if OmegaConf.select(config, MANAGER) is None:
        reason = "adds deadlines and names failures"
        wanted.append(DerivedSetting(MANAGER, AGENT_LOOP_MANAGER, reason))
    wanted += derive_lora(config) + derive_weight_reader(config, settings)
    wanted += derive_sandbox(config) + derive_telemetry(config)
    wanted += derive_reward_deadlines(config, settings.deadlines.reward_s)
    return apply_settings(config, wanted) + _derive_correction(config, settings)


def derive_sync_settings(config: DictConfig) -> list[DerivedSetting]:
    """Complete ``config`` in place for ``sync_filtered``.

    Returns:
        The settings that were changed.

    Raises:
        ConfigError: as :func:`.rewards.reward_settings.derive_sandbox`.
    """
    return apply_settings(config, derive_reward_check(config) + derive_sandbox(config))


def _derive_engine_settings(
    config: DictConfig, backend: str, settings: OneOffPipelineConfig
) -> list[DerivedSetting]:
    engine = f"{ROLLOUT}.checkpoint_engine"
    module, ours = f"{engine}.custom_backend_module", NARROWING_MODULES[backend]
    chosen = OmegaConf.select(config, module)
    if chosen not in (None, ours) and backend != "gloo":
        return []  # another engine of that name may not take what ours does
    kwargs = OmegaConf.select(config, f"{engine}.engine_kwargs.{backend}") or {}
    defaults: dict[str, tuple[object, str]] = {}
    if backend != "mooncake" and (dtype := _find_sent_dtype(config)) is not None:
        defaults["rollout_dtype"] = (dtype, "halves the traffic where the trainer holds fp32")
    reason = "sends in the rollout's dtype"
    if backend == "gloo":
        deadline = f"{PIPELINE_KEY}.deadlines.weight_sync_s"
        defaults["timeout_s"] = (settings.deadlines.weight_sync_s, deadline)
        reason = "registers the gloo engine"
    derived = [
        DerivedSetting(f"{engine}.engine_kwargs.{backend}.{key}", value, why)
        for key, (value, why) in defaults.items()
        if key not in kwargs
    ]
    if chosen is None:
        derived.append(DerivedSetting(module, ours, reason))
    return derived


def _find_sent_dtype(config: DictConfig) -> str | None:
    """The dtype that weights may travel in; None where the trainer's must stay.

    Quantised weights come with scales of their own dtype, or are quantised on arrival; ``auto`` is
    for the engine to resolve.
    """
    rollout = config.actor_rollout_ref.rollout
    sections = ("actor.qat", "actor.fsdp_config.qat", "actor.megatron.qat")
    is_trained_quantised = any(
        OmegaConf.select(config, f"actor_rollout_ref.{section}.enable") for section in sections
    )
    if is_trained_quantised or rollout.quantization is not None or str(rollout.dtype) == "auto":
        return None
    return str(rollout.dtype)


def _derive_correction(config: DictConfig, settings: OneOffPipelineConfig) -> list[DerivedSetting]:
    """Apply ``correction``; ``auto`` is decoupled PPO with truncated token-level weights.

    AReaL (arXiv 2505.24298) measured AIME24 at staleness 1: 42.1 decoupled, 41.8 naive. The naive
    objective falls far behind at larger staleness.
    """
    correction = config.algorithm.rollout_correction
    is_default = (
        correction.rollout_is is None
        and correction.rollout_rs is None
        and not correction.bypass_mode
    )
    if settings.correction == "auto" and not is_default:
        raise ConfigError(
            f"{CORRECTION}: {PIPELINE_KEY}.correction=auto chooses the correction itself, but "
            f"rollout_is={correction.rollout_is}, rollout_rs={correction.rollout_rs}, "
            f"bypass_mode={correction.bypass_mode} are set; set "
            f"{PIPELINE_KEY}.correction=as_configured to use them"
        )
    derived = []
    if settings.correction == "auto" and settings.most_staleness > 0:
        correction.rollout_is = "token"
        reason = f"staleness {settings.staleness}, truncated at {correction.rollout_is_threshold}"
        derived.append(DerivedSetting(f"{CORRECTION}.rollout_is", "token", reason))
    needs_log_probs = (
        correction.rollout_is is not None
        or correction.rollout_rs is not None
        or correction.bypass_mode
    )
    if needs_log_probs and not config.actor_rollout_ref.rollout.calculate_log_probs:
        config.actor_rollout_ref.rollout.calculate_log_probs = True
        reason = "the correction needs the rollout's log-probs"
        derived.append(DerivedSetting(f"{ROLLOUT}.calculate_log_probs", True, reason))
    return derived


def describe_correction(config: DictConfig) -> str:
    """The effective off-policy correction in words."""
    correction = config.algorithm.rollout_correction
    if correction.bypass_mode:
        return f"bypass (old_log_prob are the rollout's log-probs), loss {correction.loss_type}"
    weights = "no importance weights"
    if correction.rollout_is:
        weights = (
            f"{correction.rollout_is}-level importance weights <= {correction.rollout_is_threshold}"
        )
    parts = ["decoupled (old_log_prob recomputed)", weights]
    if correction.rollout_rs:
        parts.append(f"rejection {correction.rollout_rs} at {correction.rollout_rs_threshold}")
    return ", ".join(parts)
