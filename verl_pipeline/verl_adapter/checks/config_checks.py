"""Numbers and switches that do not fit together, seen in the configuration alone.

Invariant: each error is one line that names the field, its value and what to change.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from verl_pipeline.filters import Filter
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError, make_filters
from verl_pipeline.verl_adapter.checks.check_report import Findings, describe_exception

ACTOR = "actor_rollout_ref.actor"
SAMPLER = "trainer.v1.sampler"
FILTERING_REPLAY_BUFFER = "FilteringReplayBuffer"
FILTERING_SETTINGS = ("filters", "adv_estimator", "rollout", "model")


def load_drop_only_filters(trainer_mode: str, sampler_kwargs: Mapping[str, Any]) -> list[Filter]:
    """The filters of ``trainer.v1.sampler.sampler_kwargs``, for verl's own replay buffer.

    Raises:
        ConfigError: another mode than ``sync``, a missing or unknown setting, or a filter that does
            more than drop rows.
    """
    if trainer_mode != "sync":
        raise ConfigError(
            f"{SAMPLER}.custom_sampler: works in trainer_mode=sync, not in {trainer_mode}"
        )
    if set(sampler_kwargs) != set(FILTERING_SETTINGS):
        wrong = ", ".join(sorted(set(sampler_kwargs) ^ set(FILTERING_SETTINGS)))
        raise ConfigError(
            f"{SAMPLER}.sampler_kwargs: missing or unknown: {wrong}; +sync_filters=overlong sets "
            "all"
        )
    filters = make_filters(sampler_kwargs["filters"], f"{SAMPLER}.sampler_kwargs.filters")
    for entry in filters:
        if not getattr(entry, "only_drops", False):
            raise ConfigError(
                f"{SAMPLER}.sampler_kwargs.filters: {entry.name} sets advantages to 0, which a "
                "replay buffer cannot; use trainer.v1.trainer_mode=sync_filtered"
            )
    return filters


def check_trainer_version(config: DictConfig) -> None:
    """Our entry point and our modes run verl's v1 trainers."""
    if not config.trainer.use_v1:
        raise ConfigError(
            "trainer.use_v1=False: this command runs verl's v1 trainers only; set "
            "trainer.use_v1=True"
        )


def check_pools(config: DictConfig) -> Findings:
    """Both pools have devices, and whole replicas fill the rollout pool."""
    rollout = config.actor_rollout_ref.rollout
    sizes = {
        "trainer.nnodes": config.trainer.nnodes,
        "trainer.n_gpus_per_node": config.trainer.n_gpus_per_node,
        f"{ROLLOUT}.nnodes": rollout.nnodes,
        f"{ROLLOUT}.n_gpus_per_node": rollout.n_gpus_per_node,
    }
    for name, size in sizes.items():
        if size < 1:
            yield ConfigError(
                f"{name}={size}: both pools need at least one device; set {name} to 1 or more"
            )
    degrees = ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")
    for name in degrees:
        if rollout[name] < 1:
            yield ConfigError(f"{ROLLOUT}.{name}={rollout[name]}: set it to 1 or more")
    parallel = count_replica_devices(config)
    devices = rollout.nnodes * rollout.n_gpus_per_node
    if parallel > 0 and devices % parallel:
        yield ConfigError(
            f"{ROLLOUT}.tensor_model_parallel_size x data_parallel_size x "
            f"pipeline_model_parallel_size={parallel}: does not divide the rollout pool of "
            f"{devices}; change either"
        )


def count_replica_devices(config: DictConfig) -> int:
    """Devices of one rollout replica, as verl's LLMServerManager counts them."""
    rollout = config.actor_rollout_ref.rollout
    tensor_parallel = rollout.tensor_model_parallel_size
    disaggregation = rollout.disaggregation
    if disaggregation.enabled:
        decode = disaggregation.decode_tensor_model_parallel_size
        tensor_parallel = (
            tensor_parallel * disaggregation.prefill_replicas
            + (tensor_parallel if decode is None else decode) * disaggregation.decode_replicas
        )
    return tensor_parallel * rollout.data_parallel_size * rollout.pipeline_model_parallel_size


def count_trainer_ranks(config: DictConfig) -> int:
    """Devices of the trainer's pool."""
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def check_dataset(config: DictConfig, rows: int) -> None:
    """Refuse a training set that does not fill one batch.

    Args:
        rows: prompts left after verl's own filters.
    """
    if rows < config.data.train_batch_size:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size}: the training set has {rows} "
            "prompts (after verl's length filter); use a smaller batch or more data"
        )


def check_mini_batches(config: DictConfig) -> None:
    """Refuse different mini-batch sizes of actor and critic where filters may drop rows.

    verl pads the remaining rows to a multiple of both sizes, so the last mini-batch of the smaller
    size could consist of padding only: a mean over no tokens.
    """
    if not need_critic(config):
        return
    actor = config.actor_rollout_ref.actor.ppo_mini_batch_size
    critic = config.critic.ppo_mini_batch_size
    if actor != critic:
        raise ConfigError(
            f"critic.ppo_mini_batch_size={critic}: must equal {ACTOR}.ppo_mini_batch_size={actor}: "
            "filters may drop rows, and a mini-batch of padding only has no mean"
        )


def check_unsupported(config: DictConfig) -> Findings:
    """Refuse what the schedule has no place for."""
    sampler = config.trainer.v1.sampler
    refusals = [
        (
            "algorithm.filter_groups.enable",
            bool(OmegaConf.select(config, "algorithm.filter_groups.enable")),
            "one-off pipelining trains the data loader's batches and replaces none; set it False",
        ),
        (
            "trainer.v1.sampler.sync_refill_failed_groups",
            bool(sampler.get("sync_refill_failed_groups", False)),
            "failed trajectories are dropped, not replaced; set it False",
        ),
        (
            "trainer.v1.sampler.custom_sampler.path",
            bool(OmegaConf.select(sampler, "custom_sampler.path")),
            "the in-order replay buffer is part of the schedule; remove it",
        ),
        (
            "reward.reward_model.enable",
            bool(
                config.reward.reward_model.enable
                and not config.reward.reward_model.enable_resource_pool
            ),
            "a colocated reward model needs a rollout pool that pauses; set "
            "reward.reward_model.enable_resource_pool=True",
        ),
        (
            "skip.rollout_tq.enable",
            bool(config.skip.rollout_tq.enable),
            "not supported with pipelining; set it False",
        ),
    ]
    for name, refused, reason in refusals:
        if refused:
            yield ConfigError(f"{name}={OmegaConf.select(config, name)}: {reason}")


def check_with_verl(config: DictConfig) -> None:
    """verl's own validation, which stops at the first setting that it refuses.

    Raises:
        ConfigError: that setting.
    """
    try:
        validate_config(
            config,
            use_reference_policy=need_reference_policy(config),
            use_critic=need_critic(config),
        )
    except (AssertionError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    except Exception as error:  # verl builds its dataclasses from what the user wrote
        cause = error.__cause__ or error
        raise ConfigError(f"verl refuses the settings: {describe_exception(cause)}") from error
