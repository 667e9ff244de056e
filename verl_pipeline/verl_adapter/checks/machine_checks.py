"""Settings that do not fit this machine: devices and files.

Invariant: each error is one line that names the field, its value and what to change.
"""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.import_utils import load_extern_object

from verl_pipeline.outputs.errors import OutputError, refuse_tilde
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks import code_checks
from verl_pipeline.verl_adapter.checks.check_report import Findings, NotChecked
from verl_pipeline.verl_adapter.checks.data_files import (
    DataFileError,
    check_data_files,
    list_entries,
)
from verl_pipeline.verl_adapter.settings.verl_defaults import list_paths

ACTOR = "actor_rollout_ref.actor"
MODEL_PATH = "actor_rollout_ref.model.path"
# Settings that name one file, which verl reads after the models are loaded.
FILES = (
    f"{ROLLOUT}.agent.agent_loop_config_path",
    f"{ROLLOUT}.multi_turn.tool_config_path",
    f"{ROLLOUT}.multi_turn.function_tool_path",
    f"{ROLLOUT}.multi_turn.interaction_config_path",
    "data.tool_config_path",
    "data.function_tool_path",
)


def check_files(config: DictConfig) -> Findings:
    """Data files can be read, and the files that other settings name exist."""
    if not reads_files_as_verl(config.data):
        yield NotChecked(
            f"data.custom_cls={config.data.custom_cls.name}: it may read anything, so the data "
            "files were not looked at"
        )
    else:
        for name in ("train_files", "val_files"):
            yield from _check_data_setting(config.data, name)
    # verl's data section takes over the path of another setting by default: named once.
    named = {OmegaConf.select(config, name): name for name in reversed(FILES)}
    for path, name in named.items():
        if path is not None and not os.path.exists(os.path.expanduser(str(path))):
            yield ConfigError(f"{name}={path}: no such file; correct the path")
    try:
        refuse_tilde(Path(str(config.trainer.default_local_dir)))
    except OutputError as error:
        yield ConfigError(f"trainer.default_local_dir={error}")
    resumed = config.trainer.resume_from_path
    if config.trainer.resume_mode == "resume_path" and not os.path.isdir(str(resumed)):
        yield ConfigError(
            f"trainer.resume_from_path={resumed}: no such folder; name a checkpoint's, which ends "
            "in global_step_<number>, or set trainer.resume_mode=auto"
        )


def check_paths(config: DictConfig) -> Findings:
    """Paths are texts, and none is empty, which would stand for the current folder."""
    for field in list_paths():
        if field in (*FILES, *code_checks.MODULES):
            continue  # these are opened
        try:
            value = OmegaConf.select(config, field, throw_on_missing=True)
        except OmegaConfBaseException:
            continue  # check_readable names it
        if value is None and field != MODEL_PATH:
            continue
        if not isinstance(value, str):
            yield ConfigError(f"{field}={value}: must be a text; name a file or folder")
        elif not value:
            yield ConfigError(f"{field}: is empty; name a file or folder, the current one as .")


def _check_data_setting(data: DictConfig, name: str) -> Findings:
    value = data[name]
    try:
        check_data_files(value, data.get("use_shm", False))
    except DataFileError as error:
        shown = "" if str(error).startswith(str(value)) else f"{value}: "
        yield ConfigError(f"data.{name}={shown}{error}")
        return
    for entry in list_entries(value):
        if "://" in entry and not entry.startswith("file://"):
            yield NotChecked(f"data.{name}={entry}: a remote file, which verl reads when it starts")


def reads_files_as_verl(data: DictConfig) -> bool:
    """Whether the data set finds its files as verl's own does; another one may read anything."""
    path = OmegaConf.select(data, "custom_cls.path")
    if path is None:
        return True
    dataset = load_extern_object(path, data.custom_cls.name)
    methods = ("_download", "_read_files_and_tokenize")
    return all(getattr(dataset, name, None) is getattr(RLHFDataset, name) for name in methods)


def has_device() -> bool:
    """Whether a device of verl's platform is visible in this process."""
    from verl.plugin.platform import get_platform

    return get_platform().is_available()


def check_device(config: DictConfig) -> Findings:
    """The configured device is the platform's; on CPUs, strategy and offloading are possible."""
    from verl.utils.device import get_device_name

    device, actual = config.trainer.device, get_device_name()
    if device != actual:
        fix = f"set trainer.device={actual}"
        if device == "cpu":
            fix = "add +verl_pipeline=cpu to run on CPUs"
        yield ConfigError(f"trainer.device={device}: verl's platform is {actual}; {fix}")
    elif device != "cpu" and not has_device():
        # A cluster's head node may have none, so a run may still start here.
        yield NotChecked(f"trainer.device={device}: this machine has no such device")
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
            yield ConfigError(
                f"{name}={strategy}: CPUs need fsdp2; set {name}=fsdp2, or add +verl_pipeline=cpu"
            )
    for name, section in sections:
        for offload in ("param_offload", "optimizer_offload", "offload_policy"):
            if section.get(offload, False):
                yield ConfigError(
                    f"{name}.{offload}=True: there is no device to offload from; set it False"
                )
