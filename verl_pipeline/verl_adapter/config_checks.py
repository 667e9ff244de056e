"""Settings that cannot work, found before any model is loaded.

Invariant: each error is one line that names the field, its value and what to change.
"""

import copy
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from verl_pipeline.filters import Filter
from verl_pipeline.trainer.pipeline_config import (
    FILTERED_SYNC_MODE,
    PIPELINE_KEY,
    ROLLOUT,
    TRAINER_MODE,
    ConfigError,
    load_pipeline_config,
    load_sync_filters,
    make_filters,
)
from verl_pipeline.verl_adapter import machine_checks
from verl_pipeline.verl_adapter.derived_settings import derive_settings
from verl_pipeline.verl_adapter.moved_paths import check_moved_paths
from verl_pipeline.verl_adapter.reward_settings import check_sandbox_is_used, derive_sandbox
from verl_pipeline.verl_adapter.sandbox_check import check_sandbox

ACTOR = "actor_rollout_ref.actor"
SAMPLER = "trainer.v1.sampler"
FILTERING_REPLAY_BUFFER = "FilteringReplayBuffer"
FILTERING_SETTINGS = ("filters", "adv_estimator", "rollout", "model")


def check_run(config: DictConfig, skip: Collection[str] = ()) -> None:
    """Check everything about a run, in any trainer mode, that can be checked before Ray starts.

    Args:
        skip: as in :func:`check_pipelined_config`.

    Raises:
        ConfigError: the first setting that cannot work.
    """
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    check_moved_paths(config)
    mode = config.trainer.v1.trainer_mode
    check_trainer_mode(mode, list(TRAINER_REGISTRY))
    if mode == TRAINER_MODE:
        check_pipelined_config(config, skip)
        derive_settings(copy.deepcopy(config), load_pipeline_config(config))
    elif mode == FILTERED_SYNC_MODE:
        load_sync_filters(config)
        check_mini_batches(config)
        derive_sandbox(config)
    else:
        check_sandbox_is_used(config)
        if OmegaConf.select(config, f"{SAMPLER}.custom_sampler.name") == FILTERING_REPLAY_BUFFER:
            load_drop_only_filters(mode, OmegaConf.select(config, f"{SAMPLER}.sampler_kwargs"))
            check_mini_batches(config)
    if mode != TRAINER_MODE and "sandbox" not in skip:
        check_sandbox(config)
    try:
        validate_config(
            config,
            use_reference_policy=need_reference_policy(config),
            use_critic=need_critic(config),
        )
    except (AssertionError, ValueError) as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def check_pipelined_config(config: DictConfig, skip: Collection[str] = ()) -> None:
    """Check everything about a pipelined run that can be seen without Ray.

    Args:
        skip: those of ``files``, ``lengths``, ``device`` and ``sandbox`` that live on another
            machine.

    Raises:
        ConfigError: the first setting that cannot work.
    """
    machine = {
        "files": machine_checks.check_files,
        "lengths": machine_checks.check_lengths,
        "device": machine_checks.check_device,
        "sandbox": check_sandbox,
    }
    for check in (
        check_moved_paths,
        _check_trainer_version,
        _check_pools,
        _check_batches,
        *(check for name, check in machine.items() if name not in skip),
        _check_unsupported,
        _check_filters,
    ):
        check(config)


def check_trainer_mode(mode: str, known: list[str]) -> None:
    """Refuse a trainer mode that nobody registered, naming the nearest one."""
    if mode not in known:
        near = difflib.get_close_matches(mode, known, n=1)
        raise ConfigError(
            f"trainer.v1.trainer_mode={mode}: unknown; "
            + (f"did you mean {near[0]}?" if near else f"registered: {', '.join(sorted(known))}")
        )


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


def _check_trainer_version(config: DictConfig) -> None:
    if not config.trainer.use_v1:
        raise ConfigError(
            "trainer.use_v1=False: one-off pipelining is a v1 trainer; set trainer.use_v1=True"
        )


def _check_pools(config: DictConfig) -> None:
    rollout = config.actor_rollout_ref.rollout
    sizes = {
        "trainer.nnodes": config.trainer.nnodes,
        "trainer.n_gpus_per_node": config.trainer.n_gpus_per_node,
        f"{ROLLOUT}.nnodes": rollout.nnodes,
        f"{ROLLOUT}.n_gpus_per_node": rollout.n_gpus_per_node,
    }
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ConfigError(
                f"{name}={size}: both pools need at least one device; set {name} to 1 or more"
            )
    parallel = (
        rollout.tensor_model_parallel_size
        * rollout.data_parallel_size
        * rollout.pipeline_model_parallel_size
    )
    devices = rollout.nnodes * rollout.n_gpus_per_node
    if devices % parallel:
        raise ConfigError(
            f"{ROLLOUT}.tensor_model_parallel_size x data_parallel_size x "
            f"pipeline_model_parallel_size={parallel}: does not divide the rollout pool of "
            f"{devices}; change either"
        )


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


def _check_batches(config: DictConfig) -> None:
    batch = config.data.train_batch_size
    n = config.actor_rollout_ref.rollout.n
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    sections = [
        (f"{ACTOR}.ppo_mini_batch_size", config.actor_rollout_ref.actor.ppo_mini_batch_size)
    ]
    if need_critic(config):
        sections.append(("critic.ppo_mini_batch_size", config.critic.ppo_mini_batch_size))
    for name, mini_batch in sections:
        if mini_batch < 1 or batch % mini_batch:
            raise ConfigError(f"{name}={mini_batch}: must divide data.train_batch_size={batch}")
        if mini_batch * n % ranks:
            raise ConfigError(
                f"{name}={mini_batch}: times {ROLLOUT}.n={n} is {mini_batch * n}, which {ranks} "
                "trainer ranks (trainer.nnodes x n_gpus_per_node) cannot share evenly"
            )
    check_mini_batches(config)
    _check_micro_batches(config, ranks)
    gen_batch = config.data.get("gen_batch_size", None)
    if gen_batch is not None and batch % gen_batch:
        raise ConfigError(
            f"data.gen_batch_size={gen_batch}: must divide data.train_batch_size={batch}"
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


def _check_micro_batches(config: DictConfig, ranks: int) -> None:
    if config.actor_rollout_ref.actor.use_dynamic_bsz:
        return
    n = config.actor_rollout_ref.rollout.n
    shares = {
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": (
            config.actor_rollout_ref.actor.ppo_mini_batch_size * n // ranks
        ),
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": config.data.train_batch_size * n // ranks,
    }
    for name, share in shares.items():
        micro_batch = OmegaConf.select(config, name)
        if micro_batch is not None and share % micro_batch:
            raise ConfigError(
                f"{name}={micro_batch}: must divide the {share} trajectories of each trainer rank"
            )


def _check_unsupported(config: DictConfig) -> None:
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
            raise ConfigError(f"{name}={OmegaConf.select(config, name)}: {reason}")


def _check_filters(config: DictConfig) -> None:
    make_filters(load_pipeline_config(config).filters, f"{PIPELINE_KEY}.filters")
