"""Checks every stage before the first one starts, and before anything is loaded.

Invariants:
* Each error is one line that names the stage, the setting, its value and the remedy.
* The checked values are those that verl will see, whether they come from a file, the hardware
  profile or an override.
* A check is skipped only in a dry run, and only if its object is not on this machine. A note names
  every skipped check.
"""

import contextlib
import copy
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.errors import UserError
from verl_pipeline.recipes.deepcoder.data.parquet_schema import check_parquet
from verl_pipeline.recipes.deepcoder.stages.run_state import list_constant_settings
from verl_pipeline.recipes.deepcoder.stages.stage_config import HardwareConfig
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import (
    RunSettings,
    build_overrides,
    build_stream_overrides,
    compose_config,
)

SPLITS = ("train", "val")
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


class StageError(UserError):
    """A stage cannot be trained; the message says why."""


@dataclass(frozen=True)
class StagePlan:
    """A stage that has passed its checks.

    Attributes:
        name: name of the stage.
        overrides: overrides of ``verl_pipeline.main``, except the position in the stream.
        config: verl's configuration, composed from the overrides.
        derived: settings that the trainer will derive by itself, as text.
        notes: what could not be checked on this machine, and what is unknown about the data.
    """

    name: str
    overrides: Sequence[str]
    config: DictConfig
    derived: Sequence[str]
    notes: Sequence[str]


def plan_stages(settings: RunSettings, *, dry_run: bool = False) -> list[StagePlan]:
    """Compose and check every stage.

    Raises:
        UserError: names every setting that cannot work, with the first stage that has it.
    """
    plans: list[StagePlan] = []
    faults: dict[str, str] = {}
    for name in settings.run.stages:
        try:
            plans.append(_plan_stage(settings, name, dry_run))
        except UserError as error:
            for line in str(error).splitlines():
                faults.setdefault(line, f"stage {name}: {line}")
    if faults:
        raise StageError("\n".join(faults.values()))
    first = plans[0]
    shared_settings = _list_shared_settings(first.config)
    for plan in plans[1:]:
        first_count, count = _count_trainer_ranks(first.config), _count_trainer_ranks(plan.config)
        if first_count != count:
            raise StageError(
                f"stage {plan.name}: trainer.nnodes x n_gpus_per_node={count}: {first_count} in "
                f"stage {first.name}; a checkpoint has one shard per trainer rank, so make them "
                "equal"
            )
        for key, value in _list_shared_settings(plan.config).items():
            if shared_settings.get(key) != value:
                raise StageError(
                    f"stage {plan.name}: {key}={value}: {shared_settings.get(key)} in stage "
                    f"{first.name}; all stages share this setting, since each one continues with "
                    "the checkpoint and the prompts of the stage before; make them equal"
                )
    return plans


def list_data_files(config: DictConfig, split: str) -> list[Path]:
    """Return the data files of ``split``, which is ``train`` or ``val``.

    What names no file of this machine is returned as it is.
    """
    from verl_pipeline.verl_adapter.checks.data_files import (
        DataFileError,
        find_data_files,
        list_entries,
    )

    files: list[Path] = []
    for entry in list_entries(config.data[f"{split}_files"]):
        try:
            found = find_data_files(entry)
        except DataFileError:
            found = []
        files += map(Path, found or [str(entry)])
    return files


def _list_shared_settings(config: DictConfig) -> dict[str, Any]:
    train_files = [str(file) for file in list_data_files(config, "train")]
    return list_constant_settings(config) | {"data.train_files": train_files}


def _plan_stage(settings: RunSettings, name: str, dry_run: bool) -> StagePlan:
    from verl_pipeline.trainer.pipeline_config import load_pipeline_config
    from verl_pipeline.verl_adapter.checks.check_list import examine_run
    from verl_pipeline.verl_adapter.checks.check_report import READABLE
    from verl_pipeline.verl_adapter.entry.run_entry import choose_device
    from verl_pipeline.verl_adapter.settings.derived_settings import derive_settings

    overrides = build_overrides(settings, name)
    config = compose_config([*overrides, *build_stream_overrides(0)])
    missing = _find_missing_file(config)
    # verl prints here; standard output is for the settings of a dry run.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # verl's, on engines that are not installed
        choose_device(config)
        report = examine_run(config, skip=() if missing is None else ("files",))
    faults, notes = list(report.errors), []
    if dry_run:
        if missing is not None:
            command = "python -m verl_pipeline.recipes.deepcoder.prepare"
            notes.append(f"data: {missing} does not exist yet ({command})")
        notes += [*report.not_checked, *report.out_of_reach]
        notes = [f"not checked: {text}" for text in notes]
    else:
        faults += report.out_of_reach
    if not report.failed & {READABLE, "numbers"}:
        checks = [
            lambda: _check_capacity(config, settings.hardware),
            lambda: _check_runner_settings(config),
        ]
        if "files" not in report.failed and not (dry_run and missing):
            checks.append(lambda: notes.extend(_check_data_files(config)))
        for check in checks:
            try:
                check()
            except UserError as error:
                faults.append(str(error))
    if faults:
        raise StageError("\n".join(faults))
    derived = derive_settings(copy.deepcopy(config), load_pipeline_config(config))
    return StagePlan(name, overrides, config, [str(entry) for entry in derived], notes)


def _find_missing_file(config: DictConfig) -> Path | None:
    """The first data file that is not on this machine; None too if no setting names one."""
    try:
        return _find_first_missing(config)
    except OmegaConfBaseException:
        return None  # the check of the files says so


def _find_first_missing(config: DictConfig) -> Path | None:
    files = (path for split in SPLITS for path in list_data_files(config, split))
    return next((path for path in files if not os.path.exists(path)), None)


def _check_data_files(config: DictConfig) -> list[str]:
    """Check the data files; return a note for each file that the recipe did not write."""
    notes = [check_parquet(path) for split in SPLITS for path in list_data_files(config, split)]
    train_files = list_data_files(config, "train")
    rows = sum(pyarrow.parquet.read_metadata(path).num_rows for path in train_files)
    batch = config.data.train_batch_size
    if rows < batch:
        raise StageError(
            f"data.train_batch_size={batch}: data.train_files have only {rows} rows; use a smaller "
            "batch"
        )
    return [note for note in notes if note]


def _count_trainer_ranks(config: DictConfig) -> int:
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def _check_capacity(config: DictConfig, hardware: HardwareConfig) -> None:
    rollout = config.actor_rollout_ref.rollout
    for name, devices in (
        ("trainer.n_gpus_per_node", config.trainer.n_gpus_per_node),
        (f"{ROLLOUT}.n_gpus_per_node", rollout.n_gpus_per_node),
    ):
        if devices > hardware.devices:
            raise StageError(
                f"{name}={devices}: the hardware has {hardware.devices} devices per node; use at "
                "most as many"
            )
    train_count = _count_trainer_ranks(config)
    rollout_count = rollout.nnodes * rollout.n_gpus_per_node
    total_count = hardware.nodes * hardware.devices
    if train_count + rollout_count > total_count:
        raise StageError(
            f"pools: {train_count} devices for training and {rollout_count} for rollouts are "
            f"{train_count + rollout_count} together; the hardware has {total_count}: make a pool "
            "smaller, or choose another --hardware"
        )


def _check_runner_settings(config: DictConfig) -> None:
    """Check the settings on which the stage runner itself depends."""
    actor = config.actor_rollout_ref.actor
    if config.trainer.save_freq < 1:
        raise StageError(
            f"trainer.save_freq={config.trainer.save_freq}: the next stage needs a checkpoint; set "
            "it to 1 or more"
        )
    if actor.checkpoint.async_save:
        raise StageError(
            f"{ACTOR}.checkpoint.async_save=True: the runner needs checkpoints that are complete "
            "when verl says so; set it to False"
        )
    if "file" not in config.trainer.logger:
        raise StageError(
            f"trainer.logger={list(config.trainer.logger)}: the runner reads progress from the "
            "logger 'file'; add it"
        )
    if missing := {"model", "optimizer"} - set(actor.checkpoint.save_contents):
        raise StageError(
            f"{ACTOR}.checkpoint.save_contents: lacks {sorted(missing)[0]}, without which a run "
            "cannot resume; add it"
        )
