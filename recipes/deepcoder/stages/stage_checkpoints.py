"""verl's checkpoints below a stage: which one is complete, whose it is, and how a stage hands its
last one on.

    <checkpoints>/latest_checkpointed_iteration.txt    the step that is complete; verl writes it
    last <checkpoints>/global_step_<k>/actor, critic, data.pt, transfer_queue

Invariants:
* A checkpoint is complete when verl says so, not when its folder is there.
* What is handed over are the weights, the optimizer and the step, by links; no file of the earlier
  stage is written. The position in the data is not: the next stage begins where the prompts that
  were trained end.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.store import write_text
from verl_pipeline.evaluation.watch import COMPLETE

# Of a model's config.json; those that decide whether a checkpoint's tensors fit.
IDENTITY = (
    "architectures",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


class BadCheckpoint(Refused):
    """A checkpoint that cannot be resumed from; the message says which and why."""


def latest(checkpoints: Path) -> int | None:
    """The step that is complete; None: none is, or verl is writing the mark at this moment."""
    mark = checkpoints / COMPLETE
    text = mark.read_text().strip() if mark.is_file() else ""
    return int(text) if text.isdigit() and folder_of(checkpoints, int(text)).is_dir() else None


def repair(checkpoints: Path) -> None:
    """Write the mark again that a kill has left empty; only while no training writes there.

    verl opens the mark, which empties it, when everything else of the checkpoint is written: the
    newest folder is it.
    """
    mark = checkpoints / COMPLETE
    if mark.is_file() and not mark.read_text().strip():
        matches = (
            re.fullmatch(r"global_step_(\d+)", folder.name) for folder in checkpoints.iterdir()
        )
        write_text(mark, str(max(int(match[1]) for match in matches if match)))


def folder_of(checkpoints: Path, step: int) -> Path:
    """verl's folder of a step."""
    return checkpoints / f"global_step_{step}"


def hand_over(source: Path, target: Path, step: int) -> None:
    """Let a training in ``target`` resume from step ``step`` of the checkpoints ``source``; may be
    called again.

    Raises:
        BadCheckpoint: it is not there any more.
    """
    begun = folder_of(source, step)
    parts = [name for name in ("actor", "critic") if (begun / name).is_dir()]
    if "actor" not in parts:
        raise BadCheckpoint(
            f"{begun}/actor is not there; the next stage resumes from it. Restore it, or keep more "
            "checkpoints (trainer.max_actor_ckpt_to_keep)"
        )
    folder = folder_of(target, step)
    if not folder.is_dir():
        scratch = target / f".handing-over-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for name in parts:
            # Relative: the output may be moved as a whole.
            (scratch / name).symlink_to(os.path.relpath(begun / name, folder))
        scratch.rename(folder)
    write_text(target / COMPLETE, str(step))


def check_checkpoint(folder: Path, config: DictConfig) -> None:
    """Refuse the checkpoint of another model, or of another number of trainers, before anything is
    loaded.

    Args:
        folder: ``global_step_<k>``.
        config: verl's, of the run that is to resume.

    Raises:
        BadCheckpoint: the field that differs, with both values.
    """
    saved = folder / "actor" / "huggingface" / "config.json"
    if not saved.is_file():
        raise BadCheckpoint(f"{saved}: no such file; is {folder} a checkpoint of verl's?")
    there, wanted = json.loads(saved.read_text()), _model(config)
    for name in IDENTITY:
        if there.get(name) != wanted.get(name):
            raise BadCheckpoint(
                f"{folder}: a checkpoint of another model: {name}={there.get(name)} there, "
                f"{wanted.get(name)} in "
                f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path}; choose that "
                "model or another --output"
            )
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    shards = list((folder / "actor").glob("model_world_size_*_rank_*.pt"))
    of_world = [path for path in shards if path.name.startswith(f"model_world_size_{ranks}_")]
    if shards and not of_world:
        raise BadCheckpoint(
            f"{folder}: written by {len(shards)} trainers, which trainer.nnodes x "
            f"n_gpus_per_node={ranks} cannot read"
        )


def _model(config: DictConfig) -> dict[str, Any]:
    """The model's configuration as its config.json has it."""
    from transformers import AutoConfig

    model = config.actor_rollout_ref.model
    return AutoConfig.from_pretrained(
        model.path, trust_remote_code=model.get("trust_remote_code", False)
    ).to_dict()
