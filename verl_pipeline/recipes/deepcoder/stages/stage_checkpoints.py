"""verl's checkpoints of a stage: which one is complete, and which model and run it fits.

A step's folder holds ``actor``, ``critic``, ``data.pt`` and ``held_batches.arrow``
(:mod:`verl_pipeline.verl_adapter.checkpointing.checkpoint_layout`). At the transition between two
stages, the next stage gets links to the weights and the optimizer of the last checkpoint.

Invariants:
* A checkpoint is complete when verl's marker says so, not when its folder exists. Our trainer
  writes the marker last; :func:`.checkpoint_search.restore_marker` makes up for a kill before that.
* A transition writes nothing into the earlier stage. It leaves out the position in the data
  (``data.pt``): the next stage begins at the prompt after the last trained one.
"""

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_pipeline.errors import UserError
from verl_pipeline.outputs.errors import name_system_errors
from verl_pipeline.outputs.files import write_text
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    LATEST_STEP_FILE,
    find_shard_ranks,
    get_step_folder,
    read_latest_step,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    ManifestError,
    read_manifest,
    write_manifest,
)

# Fields of a model's config.json that decide whether the tensors of a checkpoint fit.
MODEL_FIELDS = (
    "architectures",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


class CheckpointError(UserError):
    """A run cannot resume from a checkpoint; the message says from which one and why."""


def find_latest_step(checkpoints: Path) -> int | None:
    """Return the step of the complete checkpoint.

    Returns:
        None if no checkpoint is complete, or if verl is writing the marker at this moment.
    """
    step = read_latest_step(checkpoints)
    return step if step is not None and get_step_folder(checkpoints, step).is_dir() else None


def link_checkpoint(source: Path, target: Path, step: int) -> None:
    """Let a training in ``target`` resume from step ``step`` of ``source``.

    A call that was interrupted may be repeated.

    Args:
        source: checkpoints of the earlier stage.
        target: checkpoints of the next stage.
        step: last step of the earlier stage.

    Raises:
        CheckpointError: the checkpoint does not exist any more.
    """
    source_folder = get_step_folder(source, step)
    parts = [name for name in ("actor", "critic") if (source_folder / name).is_dir()]
    if "actor" not in parts:
        raise CheckpointError(
            f"{source_folder}/actor does not exist, but the next stage resumes from it; restore "
            "it, or keep more checkpoints (trainer.max_actor_ckpt_to_keep)"
        )
    folder = get_step_folder(target, step)
    if not folder.is_dir():
        scratch = target / f".transition-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        with name_system_errors(folder):
            scratch.mkdir(parents=True)
            for name in parts:
                # Relative links stay valid if the whole output folder is moved.
                (scratch / name).symlink_to(os.path.relpath(source_folder / name, folder))
            _copy_manifest(source_folder, scratch, parts)
            scratch.rename(folder)
    write_text(target / LATEST_STEP_FILE, str(step))


def _copy_manifest(source: Path, target: Path, models: list[str]) -> None:
    """Let the next stage verify the models, if the earlier one can."""
    with contextlib.suppress(ManifestError):
        if manifest := read_manifest(source):
            kept = tuple(p for p in manifest.parts if p.path.partition("/")[0] in models)
            # The next stage may not remove what is the earlier one's.
            write_manifest(target, replace(manifest, serial=1, keep={}, parts=kept))


def check_checkpoint(folder: Path, config: DictConfig) -> None:
    """Refuse the checkpoint of another model or of another number of trainer ranks.

    Args:
        folder: ``global_step_<k>``.
        config: verl's configuration of the run that is to resume.

    Raises:
        CheckpointError: the message names the field that differs, with both values.
    """
    saved_file = folder / "actor" / "huggingface" / "config.json"
    if not saved_file.is_file():
        raise CheckpointError(f"{saved_file}: no such file; is {folder} a checkpoint of verl?")
    saved, model = json.loads(saved_file.read_text()), _load_model_config(config)
    for name in MODEL_FIELDS:
        if saved.get(name) != model.get(name):
            raise CheckpointError(
                f"{folder}: a checkpoint of another model: {name} is {saved.get(name)} in the "
                f"checkpoint, but {model.get(name)} in "
                f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path}; choose that "
                "model or another --output"
            )
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    wrote = find_shard_ranks(folder)
    if wrote and ranks not in wrote:
        raise CheckpointError(
            f"{folder}: {max(wrote)} trainer ranks wrote this checkpoint, but trainer.nnodes x "
            f"n_gpus_per_node={ranks} trainer ranks cannot read it; use as many as wrote it"
        )


def _load_model_config(config: DictConfig) -> dict[str, Any]:
    """Load the configuration of the model, with the fields of its config.json."""
    from transformers import AutoConfig

    model = config.actor_rollout_ref.model
    return AutoConfig.from_pretrained(
        model.path, trust_remote_code=model.get("trust_remote_code", False)
    ).to_dict()
