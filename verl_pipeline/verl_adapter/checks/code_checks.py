"""The user's own code that settings name: it can be imported and holds what verl will call.

Invariant: whatever a module does when it is imported, the finding is one line with the setting, its
value and the cause.
"""

import difflib
import os
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset, Sampler
from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
from verl.utils.import_utils import load_module

from verl_pipeline.input_files import InputError, read_config
from verl_pipeline.overrides import suggest_name
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import Findings, describe_exception

REWARD = "reward.custom_reward_function"
MANAGER = "reward.reward_manager"
AGENT = f"{ROLLOUT}.agent"
LOOPS_FILE = f"{AGENT}.agent_loop_config_path"
# Settings that name a module of the user's; null: none.
MODULES = (
    f"{REWARD}.path",
    f"{MANAGER}.module.path",
    f"{AGENT}.custom_async_server.path",
    "data.custom_cls.path",
    "data.sampler.class_path",
)


def check_reward_function(config: DictConfig) -> None:
    """``reward.custom_reward_function`` names a function."""
    section = config.reward.custom_reward_function
    if section.path is None:
        return
    function = _load_object((f"{REWARD}.path", f"{REWARD}.name"), section.path, section.name)
    if not callable(function):
        raise ConfigError(
            f"{REWARD}.name={section.name}: a {type(function).__name__} in {section.path}, and "
            "verl calls a function; name one"
        )


def check_reward_manager(config: DictConfig) -> None:
    """``reward.reward_manager`` is one of verl's, or a class that can be loaded."""
    section = config.reward.reward_manager
    if section.source == "register":
        if section.name not in REWARD_MANAGER:
            raise ConfigError(
                f"{MANAGER}.name={section.name}: unknown; "
                f"{suggest_name(str(section.name), REWARD_MANAGER)}"
            )
    elif section.source == "importlib":
        path = OmegaConf.select(section, "module.path")
        if path is None:
            raise ConfigError(
                f"{MANAGER}.module.path=null: {MANAGER}.source=importlib needs the module's path"
            )
        _load_class((f"{MANAGER}.module.path", f"{MANAGER}.name"), path, section.name)
    else:
        raise ConfigError(f"{MANAGER}.source={section.source}: must be register or importlib")


def check_dataset_class(config: DictConfig) -> None:
    """``data.custom_cls`` names a data set of torch."""
    section = OmegaConf.select(config, "data.custom_cls") or {}
    if section.get("path") is not None:
        fields = ("data.custom_cls.path", "data.custom_cls.name")
        _load_class(fields, section["path"], section.get("name"), Dataset)


def check_sampler_class(config: DictConfig) -> None:
    """``data.sampler`` names a sampler of torch."""
    section = OmegaConf.select(config, "data.sampler") or {}
    if section.get("class_path") is not None:
        fields = ("data.sampler.class_path", "data.sampler.class_name")
        _load_class(fields, section["class_path"], section.get("class_name"), Sampler)


def check_agent_loop_manager(config: DictConfig) -> None:
    """The manager of agent loops is a class, named as ``module.Class``."""
    field = f"{AGENT}.agent_loop_manager_class"
    manager = OmegaConf.select(config, field)
    if manager is None:
        return
    module, _, name = str(manager).rpartition(".")
    if not module:
        raise ConfigError(f"{field}={manager}: write module.Class")
    _load_class((field, field), f"pkg://{module}", name)


def check_agent_loops(config: DictConfig) -> Findings:
    """The agent loops that a file of the user's lists can be loaded."""
    path = OmegaConf.select(config, LOOPS_FILE)
    if path is not None and os.path.lexists(os.path.expanduser(str(path))):
        yield from _check_loops_file(str(path))


def _check_loops_file(path: str) -> Findings:
    try:
        entries = OmegaConf.to_container(read_config(Path(os.path.expanduser(path))), resolve=False)
    except InputError as error:
        yield ConfigError(f"{LOOPS_FILE}: {error}; correct it")
        return
    for entry in entries if isinstance(entries, list) else [entries]:
        if not (isinstance(entry, dict) and {"name", "_target_"} <= set(entry)):
            yield ConfigError(
                f"{LOOPS_FILE}={path}: {entry} must be an entry of a list, with name and _target_"
            )
            continue
        try:
            get_class(entry["_target_"])
        except (Exception, SystemExit) as error:  # the user's module may raise anything
            yield ConfigError(
                f"{LOOPS_FILE}={path}: {entry['name']}: _target_={entry['_target_']} cannot be "
                f"loaded ({describe_exception(error)}); correct it"
            )


def check_weight_sync_module(config: DictConfig) -> None:
    """The module that registers a checkpoint engine can be imported."""
    field = f"{ROLLOUT}.checkpoint_engine.custom_backend_module"
    if (module := OmegaConf.select(config, field)) is not None:
        _load_module(field, f"pkg://{module}")


def check_server_class(config: DictConfig) -> None:
    """The user's rollout server is a class."""
    field = f"{AGENT}.custom_async_server"
    section = OmegaConf.select(config, field) or {}
    if section.get("path") is not None:
        _load_class((f"{field}.path", f"{field}.name"), section["path"], section.get("name"))


def _load_module(field: str, path: str) -> Any:
    """Import a module that is named as ``pkg://a.b``, or by its file."""
    if not path.startswith("pkg://") and not os.path.isfile(path.removeprefix("file://")):
        raise ConfigError(f"{field}={path}: no such file (name a module as pkg://a.b)")
    try:
        return load_module(path)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        cause = error.__cause__ or error  # verl wraps it
        raise ConfigError(
            f"{field}={path}: cannot be imported ({describe_exception(cause)}); correct it"
        ) from error


def _load_object(fields: tuple[str, str], path: str, name: Any) -> Any:
    """What ``name`` is in the module ``path``; ``fields`` are the settings of path and name."""
    module = _load_module(fields[0], str(path))
    if hasattr(module, str(name)):
        return getattr(module, str(name))
    own = [entry for entry, value in vars(module).items() if callable(value) and entry[0] != "_"]
    near = difflib.get_close_matches(str(name), own, n=1)
    advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(own[:8]) or 'none'}"
    raise ConfigError(f"{fields[1]}={name}: not in {path}; {advice}")


def _load_class(fields: tuple[str, str], path: str, name: Any, base: type = object) -> type:
    loaded = _load_object(fields, path, name)
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        kind = "class" if base is object else f"subclass of {base.__module__}.{base.__name__}"
        raise ConfigError(f"{fields[1]}={name}: {path} must hold a {kind} of this name")
    return loaded
