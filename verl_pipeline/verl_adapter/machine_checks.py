"""Settings that do not fit this machine: devices, files, and what the model can take.

Invariant: each error is one line that names the field, its value and what to change.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.import_utils import load_extern_object
from verl.workers.rollout.utils import get_max_position_embeddings

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.data_files import DataFileError, check_data_files

ACTOR = "actor_rollout_ref.actor"


def find_local_path(value: str) -> Path | None:
    """``value`` as a path; None if it may name a model of the hub, as "Qwen/Qwen2.5-7B" does."""
    text = value.removeprefix("file://")
    path = Path(text).expanduser()
    return path if path.is_absolute() or text.startswith((".", "~")) or path.exists() else None


def check_files(config: DictConfig) -> None:
    """Data files can be read, and the file of a custom reward exists."""
    if _reads_files_as_verl(config.data):
        for name in ("train_files", "val_files"):
            try:
                check_data_files(config.data[name], config.data.get("use_shm", False))
            except DataFileError as error:
                value = config.data[name]
                shown = "" if str(error).startswith(str(value)) else f"{value}: "
                raise ConfigError(f"data.{name}={shown}{error}") from error
    reward = config.reward.custom_reward_function.path
    if (
        reward is not None
        and not reward.startswith("pkg://")
        and not Path(reward.removeprefix("file://")).is_file()
    ):
        raise ConfigError(
            f"reward.custom_reward_function.path={reward}: no such file (name a module as pkg://a.b)"
        )


def _reads_files_as_verl(data: DictConfig) -> bool:
    """Whether the data set finds its files as verl's own does; another one may read anything."""
    path = OmegaConf.select(data, "custom_cls.path")
    if path is None:
        return True
    try:
        dataset = load_extern_object(path, data.custom_cls.name)
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"data.custom_cls.path={path}: {data.custom_cls.name} cannot be loaded from it "
            f"({type(error).__name__}: {' '.join(str(error).split())}); correct path or name"
        ) from error
    methods = ("_download", "_read_files_and_tokenize")
    return all(getattr(dataset, name, None) is getattr(RLHFDataset, name) for name in methods)


def check_lengths(config: DictConfig) -> None:
    """Prompt and response together fit the model and the rollout engine."""
    from transformers import AutoConfig

    name, path = "actor_rollout_ref.model.path", config.actor_rollout_ref.model.path
    local = find_local_path(path)
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
    try:
        # verl's servers take this number, whatever the model's RoPE scaling says.
        limit = override or get_max_position_embeddings(model)
    except ValueError as error:
        raise ConfigError(
            f"{name}={path}: config.json has no max_position_embeddings, which verl's rollout "
            "servers need; set actor_rollout_ref.model.override_config.max_position_embeddings"
        ) from error
    if needed > limit:
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
    if rollout.max_model_len is not None and rollout.max_model_len > limit:
        raise ConfigError(
            f"{ROLLOUT}.max_model_len={rollout.max_model_len}: above the model's {limit} positions;"
            " set it to at most as many, or leave it null"
        )


def check_device(config: DictConfig) -> None:
    """The configured device is the platform's; on CPUs, strategy and offloading are possible."""
    from verl.utils.device import get_device_name

    device, actual = config.trainer.device, get_device_name()
    if device != actual:
        fix = f"set trainer.device={actual}"
        if device == "cpu":
            fix = "add +verl_pipeline=cpu to run on CPUs"
        raise ConfigError(f"trainer.device={device}: verl's platform is {actual}; {fix}")
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
