"""Relative paths of a configuration, which each process would begin in its own working folder.

verl's task runner and workers are processes of Ray. On a cluster of ``ray start`` they work where
that was called, not where the command was.

Invariants:
* What is written gets an absolute path. What is read gets one if it exists here, since a name such
  as ``Qwen/Qwen2.5-7B`` may be the hub's.
* Absolute paths, addresses (``hdfs://``), ``pkg://`` and ``~`` stay as they are.
"""

import os
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.trainer.pipeline_config import DerivedSetting
from verl_pipeline.verl_adapter.settings.verl_defaults import list_paths

OUTPUTS = ("trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir")
DATA_FILES = ("data.train_files", "data.val_files")
_REASON = "relative paths begin where the command was started"


def derive_absolute_paths(config: DictConfig) -> list[DerivedSetting]:
    """The settings to change in the process whose working directory the user meant."""
    derived = []
    for field in (*list_paths(), *DATA_FILES):
        if _is_reference(config, field):
            continue
        try:
            value = OmegaConf.select(config, field)
        except OmegaConfBaseException:
            continue  # check_readable names it
        absolute = _make_absolute(value, is_output=field in OUTPUTS)
        if absolute != value:
            derived.append(DerivedSetting(field, absolute, _REASON))
    return derived


def _is_reference(config: DictConfig, field: str) -> bool:
    """Whether the value is another setting's, which has a line of its own."""
    section, _, name = field.rpartition(".")
    parent = OmegaConf.select(config, section, throw_on_resolution_failure=False)
    if not isinstance(parent, DictConfig) or not OmegaConf.is_interpolation(parent, name):
        return False
    text = str(OmegaConf.to_container(parent, resolve=False)[name])  # type: ignore[index,call-overload]
    return text.startswith("${") and text.endswith("}") and text.count("${") == 1


def _make_absolute(value: Any, *, is_output: bool) -> Any:
    if isinstance(value, list | ListConfig):
        return [_make_absolute(entry, is_output=is_output) for entry in value]
    if not isinstance(value, str) or value.startswith(("/", "~")) or "://" in value:
        return value
    return os.path.abspath(value) if value and (is_output or os.path.exists(value)) else value
