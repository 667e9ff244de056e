"""How verl shares a batch among the devices of the trainer: by data-parallel size, not by device.

Devices that hold parts of one model, or of one sequence, get the same trajectories. Which those are
is up to the engine (``get_data_parallel_size`` of verl's engines), and actor, reference model and
critic may differ. verl asserts that each mini-batch divides by that size
(``TrainingWorker.train_mini_batch``), and pads whatever is left of a batch to a common multiple
(``PPOTrainer._get_required_batch_multiple``).

Invariants:
* A role's engine is the one whose section its settings have, as for verl: ``model_engine`` chooses
  it, and ``strategy`` only tells the kinds of FSDP apart.
* The sizes are verl's own, whatever engine is installed
  (``tests/unit/verl_adapter/checks/test_data_parallel.py`` compares the two).
"""

import math
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import NotChecked
from verl_pipeline.verl_adapter.checks.config_checks import count_trainer_ranks

ACTOR, REFERENCE, CRITIC = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "critic"
RANKS = "trainer ranks (trainer.nnodes x n_gpus_per_node)"
# By section of an engine: the settings whose product is the number of devices that get the same
# trajectories.
_SHARERS = {
    "fsdp_config": ("ulysses_sequence_parallel_size",),
    "fsdp": ("ulysses_sequence_parallel_size",),
    "megatron": (
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "context_parallel_size",
    ),
    "veomni": ("ulysses_parallel_size",),
    "torchtitan": ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size"),
}
# By section: the setting that splits a sequence, as verl's engines report it (``sp_size``).
_SEQUENCE_PARTS = {
    "fsdp_config": "ulysses_sequence_parallel_size",
    "fsdp": "ulysses_sequence_parallel_size",
    "megatron": "context_parallel_size",
    "veomni": "ulysses_parallel_size",
    "torchtitan": "tensor_parallel_size",
}
_FSDP = ("fsdp_config", "fsdp")
_FSDP_STRATEGIES = ("fsdp", "fsdp2", "fsdp_turbo")


@dataclass(frozen=True)
class DataParallelShape:
    """How the devices of the trainer divide one role's work.

    Attributes:
        section: the role's settings, as in ``critic``.
        size: devices, or groups of devices, with different trajectories.
        sequence_parts: devices that share the tokens of one sequence; a micro-batch may have so
            many times its ``max_token_len_per_gpu``.
        reason: the settings behind ``size``, for messages.
    """

    section: str
    size: int
    sequence_parts: int
    reason: str


def is_reference_in_actor(config: DictConfig) -> bool:
    """Whether the actor's engine without its adapter is the reference model."""
    model = config.actor_rollout_ref.model
    rank = OmegaConf.select(model, "lora.rank", default=0) or 0
    if rank <= 0:
        rank = model.get("lora_rank", 0) or 0
    return rank > 0 or model.get("lora_adapter_path") is not None


def list_sections(config: DictConfig) -> list[str]:
    """Settings of the roles that have an engine of their own on the trainer's devices."""
    sections = [ACTOR]
    if need_critic(config):
        sections.append(CRITIC)
    if need_reference_policy(config) and not is_reference_in_actor(config):
        sections.append(REFERENCE)
    return sections


def find_shape(config: DictConfig, section: str) -> DataParallelShape:
    """The shape of the role with the settings ``section``.

    Raises:
        ConfigError: the devices cannot be divided like this.
        NotChecked: verl asks a package that only runs on the devices.
    """
    settings = OmegaConf.select(config, section)
    engine = _find_engine(section, settings)
    values = {name: _read_degree(section, settings, engine, name) for name in _SHARERS[engine]}
    names = " x ".join(values)
    sharers, ranks = math.prod(values.values()), count_trainer_ranks(config)
    if ranks % sharers:
        raise ConfigError(
            f"{section}.{engine}.{names}={sharers}: does not divide the {ranks} {RANKS}; change "
            "either"
        )
    size = ranks // sharers
    if engine == "megatron":
        _check_experts(section, settings.megatron, ranks)
        if settings.megatron.get("dynamic_context_parallel", False):
            size = 1
    if engine == "torchtitan":
        _check_torchtitan(section, settings.torchtitan, size)
    part = _SEQUENCE_PARTS[engine]
    return DataParallelShape(section, size, values[part], f"{engine}.{names}={sharers}")


def find_batch_multiple(config: DictConfig, actor_size: int) -> int:
    """The number of trajectories of which verl makes each batch a multiple.

    Args:
        actor_size: data-parallel size of the actor.
    """
    n = config.actor_rollout_ref.rollout.n
    multiple = math.lcm(actor_size, config.actor_rollout_ref.actor.ppo_mini_batch_size * n)
    if need_critic(config):
        multiple = math.lcm(multiple, config.critic.ppo_mini_batch_size * n)
    return multiple


def _find_engine(section: str, settings: DictConfig) -> str:
    engine = next((name for name in _SHARERS if settings.get(name) is not None), None)
    strategy = settings.strategy
    if engine in _FSDP:
        if strategy == "fsdp_turbo":
            raise NotChecked(
                f"{section}.strategy=fsdp_turbo: its data-parallel size, which batches must divide"
            )
        if strategy not in _FSDP_STRATEGIES:
            raise ConfigError(
                f"{section}.strategy={strategy}: its settings are not loaded; add "
                f"model_engine={strategy}"
            )
    if engine is None:
        raise NotChecked(
            f"{section}.strategy={strategy}: its data-parallel size, which batches must divide"
        )
    return engine


def _read_degree(section: str, settings: DictConfig, engine: str, name: str) -> int:
    field, value = f"{section}.{engine}.{name}", settings[engine].get(name, 1)
    # verl copies the older setting of actor and reference model; it ignores the critic's.
    older = settings.get(name, 1) if engine == "fsdp_config" else 1
    if isinstance(older, int) and older > 1:
        field, value = f"{section}.{name}", older
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{field}={value}: must be a whole number of 1 or more")
    return value


def _check_experts(section: str, megatron: DictConfig, ranks: int) -> None:
    """As ``initialize_model_parallel`` of Megatron Core does."""
    tensor = megatron.get("expert_tensor_parallel_size", None)
    experts = (
        (megatron.tensor_model_parallel_size if tensor is None else tensor)
        * megatron.expert_model_parallel_size
        * megatron.pipeline_model_parallel_size
    )
    if experts < 1 or ranks % experts:
        raise ConfigError(
            f"{section}.megatron.expert_tensor_parallel_size x expert_model_parallel_size x "
            f"pipeline_model_parallel_size={experts}: does not divide the {ranks} {RANKS}; change "
            "either"
        )


def _check_torchtitan(section: str, torchtitan: DictConfig, size: int) -> None:
    """torchtitan is told the size, and refuses another than the devices leave."""
    told = torchtitan.data_parallel_replicate_size * torchtitan.data_parallel_shard_size
    if told != size:
        raise ConfigError(
            f"{section}.torchtitan.data_parallel_replicate_size x data_parallel_shard_size={told}: "
            f"must be {size}, since tensor, pipeline and context parallelism leave so many of the "
            f"{RANKS}"
        )


def describe_size(shape: DataParallelShape) -> str:
    """The size and where it comes from, for messages."""
    return f"data-parallel size {shape.size} ({RANKS} / {shape.reason})"


def find_token_limits(config: DictConfig, shape: DataParallelShape) -> dict[str, int]:
    """The settings that limit the tokens of a micro-batch of the role, where verl packs by tokens.

    ``critic.ppo_infer_max_token_len_per_gpu`` also limits its training, and the critic always
    packs: in verl's v1 trainers nothing else reaches its engine.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    reference = config.actor_rollout_ref.ref
    limits: dict[str, int | None] = {}
    if shape.section == ACTOR and actor.use_dynamic_bsz:
        limits[f"{ACTOR}.ppo_max_token_len_per_gpu"] = actor.ppo_max_token_len_per_gpu
        name = f"{ROLLOUT}.log_prob_max_token_len_per_gpu"
        limits[name] = rollout.log_prob_max_token_len_per_gpu
    elif shape.section == REFERENCE and reference.log_prob_use_dynamic_bsz:
        name = f"{REFERENCE}.log_prob_max_token_len_per_gpu"
        limits[name] = reference.log_prob_max_token_len_per_gpu
    elif shape.section == CRITIC:
        # verl's default, which its YAML does not have.
        limit = config.critic.get("ppo_infer_max_token_len_per_gpu", 32768)
        limits[f"{CRITIC}.ppo_infer_max_token_len_per_gpu"] = limit
    return {name: limit for name, limit in limits.items() if limit is not None}
