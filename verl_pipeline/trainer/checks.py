"""Settings that cannot work, found before any model is loaded.

Invariant: each error is one line that names the field, its value and what to change.
"""

import difflib
from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic

from verl_pipeline.trainer.config import (
    PREFIX,
    ROLLOUT,
    ConfigError,
    load_pipeline_config,
    make_filters,
)

ACTOR = "actor_rollout_ref.actor"


def check_config(config: DictConfig, skip: Collection[str] = ()) -> None:
    """Check everything that can be seen without Ray.

    Args:
        skip: of ``files``, ``lengths`` and ``device``, what is on another machine than this.

    Raises:
        ConfigError: the first setting that cannot work.
    """
    here = {"files": _check_files, "lengths": _check_lengths, "device": _check_device}
    for check in (
        _check_mode,
        _check_pools,
        _check_batches,
        *(check for name, check in here.items() if name not in skip),
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


def _check_mode(config: DictConfig) -> None:
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


def check_cluster(config: DictConfig) -> None:
    """Compare the pools with what Ray has; call after ``ray.init``.

    Raises:
        ConfigError: Ray has too few devices.
    """
    import ray
    from verl.utils.device import get_resource_name

    resource = get_resource_name()
    have = int(ray.cluster_resources().get(resource, 0))
    rollout = config.actor_rollout_ref.rollout
    train, sample = (
        config.trainer.nnodes * config.trainer.n_gpus_per_node,
        rollout.nnodes * rollout.n_gpus_per_node,
    )
    if train + sample > have:
        raise ConfigError(
            f"trainer.nnodes x n_gpus_per_node + {ROLLOUT}.nnodes x n_gpus_per_node={train} + "
            f"{sample}: Ray has {have} {resource}; make a pool smaller or start Ray with more"
            + (
                " (on CPUs: ray_kwargs.ray_init.num_gpus are logical slots)"
                if config.trainer.device == "cpu"
                else ""
            )
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
    batch, n = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
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
    """Refuse mini-batches of actor and critic that differ where rows may leave a batch.

    verl pads what is left to a multiple of both: the smaller one's last mini-batch could be padding
    only, a mean over no token.
    """
    if not need_critic(config):
        return
    actor, critic = (
        config.actor_rollout_ref.actor.ppo_mini_batch_size,
        config.critic.ppo_mini_batch_size,
    )
    if actor != critic:
        raise ConfigError(
            f"critic.ppo_mini_batch_size={critic}: must be {ACTOR}.ppo_mini_batch_size={actor}, "
            "since trajectories may leave a batch and a mini-batch of padding alone has no mean"
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
                f"{name}={micro_batch}: must divide the {share} trajectories that each trainer rank"
                " gets"
            )


def _local_path(value: str) -> Path | None:
    """``value`` as a path, if it can only mean a local one; "Qwen/Qwen2.5-7B" may be a hub's."""
    text = value.removeprefix("file://")
    path = Path(text).expanduser()
    return path if path.is_absolute() or text.startswith((".", "~")) or path.exists() else None


def _check_files(config: DictConfig) -> None:
    for name in ("data.train_files", "data.val_files"):
        value = OmegaConf.select(config, name)
        for entry in [value] if isinstance(value, str) else (value or []):
            path = entry.removeprefix("file://")
            if "://" not in path and not Path(path).expanduser().exists():
                raise ConfigError(f"{name}={entry}: no such file")
    reward = config.reward.custom_reward_function.path
    if (
        reward is not None
        and not reward.startswith("pkg://")
        and not Path(reward.removeprefix("file://")).is_file()
    ):
        raise ConfigError(
            f"reward.custom_reward_function.path={reward}: no such file (a module is given as "
            "pkg://a.b)"
        )


def _check_lengths(config: DictConfig) -> None:
    from transformers import AutoConfig

    name, path = "actor_rollout_ref.model.path", config.actor_rollout_ref.model.path
    local = _local_path(path)
    if local is not None and not (local / "config.json").is_file():
        raise ConfigError(f"{name}={path}: no model there (config.json is missing)")
    try:
        model = AutoConfig.from_pretrained(
            str(local) if local else path,
            trust_remote_code=config.actor_rollout_ref.model.get("trust_remote_code", False),
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}={path}: cannot be read: {str(error).splitlines()[0]}") from error
    rollout = config.actor_rollout_ref.rollout
    needed = rollout.prompt_length + rollout.response_length
    override = OmegaConf.select(
        config, "actor_rollout_ref.model.override_config.max_position_embeddings"
    )
    text = model.get_text_config()
    limit = override or getattr(text, "max_position_embeddings", None)
    if limit is not None and needed > limit:
        raise ConfigError(
            f"data.max_response_length={rollout.response_length}: with "
            f"data.max_prompt_length={rollout.prompt_length} that is {needed} tokens, above the "
            f"model's {limit} positions; shorten one of them"
        )
    if rollout.max_model_len is not None and needed > rollout.max_model_len:
        raise ConfigError(
            f"{ROLLOUT}.max_model_len={rollout.max_model_len}: {needed} are needed; raise it or "
            "leave it null"
        )


def _check_device(config: DictConfig) -> None:
    from verl.utils.device import get_device_name

    device, actual = config.trainer.device, get_device_name()
    if device != actual:
        raise ConfigError(
            f"trainer.device={device}: verl's platform is {actual}; "
            + (
                "add +verl_pipeline=cpu to run on CPUs"
                if device == "cpu"
                else f"set trainer.device={actual}"
            )
        )
    if device != "cpu":
        return
    names = (f"{ACTOR}.fsdp_config", "actor_rollout_ref.ref.fsdp_config", "critic.fsdp")
    sections = [
        (name, OmegaConf.select(config, name))
        for name in names
        if OmegaConf.select(config, name) is not None
    ]
    strategies = [
        (f"{ACTOR}.strategy", config.actor_rollout_ref.actor.strategy),
        ("critic.strategy", config.critic.strategy),
    ]
    strategies += [(f"{name}.strategy", section.strategy) for name, section in sections]
    for name, strategy in strategies:
        if strategy != "fsdp2":
            raise ConfigError(
                f"{name}={strategy}: CPUs need fsdp2; set {name}=fsdp2, or add +verl_pipeline=cpu"
            )
    for name, section in sections:
        for offload in ("param_offload", "optimizer_offload", "offload_policy"):
            if section.get(offload, False):
                raise ConfigError(
                    f"{name}.{offload}=True: there is no device to offload from; set it False"
                )


def _check_unsupported(config: DictConfig) -> None:
    sampler = config.trainer.v1.sampler
    refusals = [
        (
            "algorithm.filter_groups.enable",
            bool(OmegaConf.select(config, "algorithm.filter_groups.enable")),
            (
                "it replaces prompts, one-off pipelining trains the data loader's batches; set it "
                "False"
            ),
        ),
        (
            "trainer.v1.sampler.sync_refill_failed_groups",
            bool(sampler.get("sync_refill_failed_groups", False)),
            "a failed trajectory is masked, not replaced; set it False",
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
            (
                "a colocated one needs a rollout pool that pauses; set "
                "reward.reward_model.enable_resource_pool=True"
            ),
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
    make_filters(load_pipeline_config(config).filters, f"{PREFIX}.filters")
