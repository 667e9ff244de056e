"""What refuses a run before anything is loaded: every stage is composed and checked before the
first one starts.

Invariants:
* Each refusal is one line that names the stage, the setting, its value and what to change.
* What is checked are the values verl will see, whoever set them: file, hardware profile or
  override.
* A check is left out only in a dry run, only for what is not on this machine, and is then named.
"""

import contextlib
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
from omegaconf import DictConfig

from recipes.deepcoder.data.parquet_schema import check_parquet
from recipes.deepcoder.stages.run_state import constants_of
from recipes.deepcoder.stages.stage_config import Hardware
from recipes.deepcoder.stages.stage_overrides import Settings, composed, place, words
from verl_pipeline.evaluation.errors import Refused

SPLITS = ("train", "val")
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


class BadStage(Refused):
    """A stage that cannot be trained."""


@dataclass(frozen=True)
class Planned:
    """A stage that has passed its checks.

    Attributes:
        name: of the stage.
        overrides: of ``verl_pipeline.main``, but for the place in the stream.
        config: verl's, as composed from them.
        derived: what the trainer will work out by itself.
        notes: what could not be checked on this machine, and what is not known of the data.
    """

    name: str
    overrides: Sequence[str]
    config: DictConfig
    derived: Sequence[str]
    notes: Sequence[str]


def plan(settings: Settings, *, dry_run: bool = False) -> list[Planned]:
    """Compose and check every stage.

    Raises:
        Refused: the first setting of any stage that cannot work.
    """
    planned = [_plan_stage(settings, name, dry_run) for name in settings.run.stages]
    first = planned[0]
    fixed = _fixed(first.config)
    for stage in planned[1:]:
        before, now = _trainers(first.config), _trainers(stage.config)
        if before != now:
            raise BadStage(
                f"stage {stage.name}: trainer.nnodes x n_gpus_per_node={now}: {before} in stage "
                f"{first.name}; a checkpoint is in as many shards as there were trainers, so make "
                "them equal"
            )
        for key, value in _fixed(stage.config).items():
            if fixed.get(key) != value:
                raise BadStage(
                    f"stage {stage.name}: {key}={value}: {fixed.get(key)} in stage {first.name}; "
                    "stages share it, since the next one goes on with the checkpoint and in the "
                    "prompts of the one before"
                )
    return planned


def _fixed(config: DictConfig) -> dict[str, Any]:
    return constants_of(config) | {
        "data.train_files": [str(file) for file in files_of(config, "train")]
    }


def files_of(config: DictConfig, split: str) -> list[Path]:
    """The files of ``split``, ``train`` or ``val``."""
    files = config.data[f"{split}_files"]
    return [Path(str(file)) for file in ([files] if isinstance(files, str) else files)]


def _plan_stage(settings: Settings, name: str, dry_run: bool) -> Planned:
    from verl.utils.device import auto_set_device

    from verl_pipeline.main import check
    from verl_pipeline.trainer.config import ConfigError, load_pipeline_config
    from verl_pipeline.trainer.derive import derive

    overrides = words(settings, name)
    try:
        config = composed([*overrides, *place(0)])
        absent = _absent(config) if dry_run else {}
        notes = [f"not checked: {text}" for text in absent.values()]
        if "files" not in absent:
            notes += _check_data(config)
        _check_capacity(config, settings.hardware)
        _check_tokens(config)
        _check_running(config)
        with contextlib.redirect_stdout(sys.stderr):
            auto_set_device(config)
            check(config, skip=tuple(absent))
        derived = derive(copy.deepcopy(config), load_pipeline_config(config))
    except (ConfigError, Refused) as error:
        raise BadStage(f"stage {name}: {error}") from error
    return Planned(name, overrides, config, [str(entry) for entry in derived], notes)


def _absent(config: DictConfig) -> dict[str, str]:
    """What is not on this machine: the names of checks, each with a note."""
    import torch
    from transformers import AutoConfig

    found = {}
    if config.trainer.device == "cuda" and not torch.cuda.is_available():
        found["device"] = "trainer.device=cuda: there is no CUDA device here"
    missing = [path for split in SPLITS for path in files_of(config, split) if not path.exists()]
    if missing:
        found["files"] = (
            f"data: {missing[0]} is not there yet (python -m recipes.deepcoder.prepare)"
        )
    model = config.actor_rollout_ref.model.path
    try:
        if not Path(model).is_absolute():
            AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError):
        found["lengths"] = (
            f"actor_rollout_ref.model.path={model}: not on this machine, so its positions are "
            "unknown"
        )
    return found


def _check_data(config: DictConfig) -> list[str]:
    """Notes on files that the recipe did not write."""
    notes = [check_parquet(path) for split in SPLITS for path in files_of(config, split)]
    rows = sum(pyarrow.parquet.read_metadata(path).num_rows for path in files_of(config, "train"))
    batch = config.data.train_batch_size
    if rows < batch:
        raise BadStage(
            f"data.train_batch_size={batch}: data.train_files have {rows} rows; use a smaller batch"
        )
    return [note for note in notes if note]


def _trainers(config: DictConfig) -> int:
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def _check_capacity(config: DictConfig, hardware: Hardware) -> None:
    rollout = config.actor_rollout_ref.rollout
    for name, devices in (
        ("trainer.n_gpus_per_node", config.trainer.n_gpus_per_node),
        (f"{ROLLOUT}.n_gpus_per_node", rollout.n_gpus_per_node),
    ):
        if devices > hardware.devices:
            raise BadStage(f"{name}={devices}: the hardware has {hardware.devices} devices a node")
    train, sample = _trainers(config), rollout.nnodes * rollout.n_gpus_per_node
    have = hardware.nodes * hardware.devices
    if train + sample > have:
        raise BadStage(
            f"pools: {train} devices train and {sample} sample, {train + sample} together; the "
            f"hardware has {have}: make a pool smaller, or choose another --hardware"
        )


def _check_tokens(config: DictConfig) -> None:
    """verl packs a micro-batch of up to tokens x sequence parallel size, and fails on a sequence
    that exceeds it.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    parallel = actor.ulysses_sequence_parallel_size
    if _trainers(config) % parallel:
        raise BadStage(
            f"{ACTOR}.ulysses_sequence_parallel_size={parallel}: must divide the "
            f"{_trainers(config)} trainers"
        )
    if not actor.use_dynamic_bsz:
        return
    needed_tokens = config.data.max_prompt_length + config.data.max_response_length
    for name, tokens in (
        (f"{ACTOR}.ppo_max_token_len_per_gpu", actor.ppo_max_token_len_per_gpu),
        (f"{ROLLOUT}.log_prob_max_token_len_per_gpu", rollout.log_prob_max_token_len_per_gpu),
    ):
        if tokens * parallel < needed_tokens:
            raise BadStage(
                f"{name}={tokens}: x {parallel} devices a sequence is {tokens * parallel}, below "
                f"prompt + response of {needed_tokens} tokens; set it to "
                f"{-(-needed_tokens // parallel)} or more"
            )


def _check_running(config: DictConfig) -> None:
    """What the runner itself rests on."""
    if config.trainer.save_freq < 1:
        raise BadStage(
            f"trainer.save_freq={config.trainer.save_freq}: a stage hands its checkpoint on; set it"
            " to 1 or more"
        )
    if config.actor_rollout_ref.actor.checkpoint.async_save:
        raise BadStage(
            f"{ACTOR}.checkpoint.async_save=True: a checkpoint must be complete when verl says so; "
            "set it False"
        )
    if "file" not in config.trainer.logger:
        raise BadStage(
            f"trainer.logger={list(config.trainer.logger)}: progress is read from 'file'; add it"
        )
    if lacks := {"model", "optimizer"} - set(
        config.actor_rollout_ref.actor.checkpoint.save_contents
    ):
        raise BadStage(
            f"{ACTOR}.checkpoint.save_contents: lacks {sorted(lacks)[0]}, without which nothing can"
            " resume"
        )
