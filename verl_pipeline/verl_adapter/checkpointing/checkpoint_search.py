"""Which checkpoint of a folder is the newest complete one, and what is wrong with the others.

Invariants:
* Nothing is written, and no content is read but that of manifests. No error of a checkpoint is
  raised: it is the checkpoint's fault, by name.
* Of checkpoints with a manifest, that with the greatest serial is the newest: a run that goes back
  to an earlier step leaves those of later steps behind. One without a manifest is newer than all
  with a smaller step.
* One without a manifest (of verl, or of a version before manifests) counts as complete if verl's
  marker names it or a later one, and nothing that verl reads is missing or cut off. While the
  marker is unreadable, which a kill of verl causes, the position of the data loader must also be
  there.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_pipeline.outputs.files import write_text
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    LATEST_STEP_FILE,
    POSITION_FILE,
    get_step_folder,
    list_steps,
    read_latest_step,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    TOMBSTONE,
    Manifest,
    ManifestError,
    find_wrong_size,
    read_manifest,
)

_SHARD = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt")
# Megatron writes its contents' list once all ranks have written theirs.
_DISTRIBUTED, _CONTENTS = ("model", "optimizer", "extra"), "ckpt_contents.json"


@dataclass(frozen=True)
class FoundCheckpoint:
    """A step's folder.

    Attributes:
        folder: ``global_step_<k>``.
        step: k.
        manifest: None if it has none, or a damaged one.
        fault: why it is not complete, as far as its names and sizes show; None if it is.
        is_lost: whether it has been complete, and is not any more.
    """

    folder: Path
    step: int
    manifest: Manifest | None = None
    fault: str | None = None
    is_lost: bool = False


def list_checkpoints(checkpoints: Path, models: Sequence[str]) -> list[FoundCheckpoint]:
    """All checkpoints in ``checkpoints`` that were not removed, the newest first.

    Args:
        checkpoints: ``trainer.default_local_dir``; need not exist.
        models: the models' folders that a checkpoint must hold, as in ``["actor"]``.
    """
    marked, has_marker = read_latest_step(checkpoints), (checkpoints / LATEST_STEP_FILE).exists()
    found = [
        _examine(get_step_folder(checkpoints, step), step, models, marked, has_marker)
        for step in list_steps(checkpoints)
    ]
    present = [one for one in found if not (one.folder / TOMBSTONE).exists()]
    ordered = sorted(
        (one for one in present if one.manifest), key=lambda one: _get_serial(one), reverse=True
    )
    for one in sorted((one for one in present if not one.manifest), key=lambda one: one.step):
        later = (i for i, other in enumerate(ordered) if other.step < one.step)
        ordered.insert(next(later, len(ordered)), one)
    return ordered


def find_newest(checkpoints: Path, models: Sequence[str] = ("actor",)) -> FoundCheckpoint | None:
    """The newest complete checkpoint; None if there is none."""
    complete = (one for one in list_checkpoints(checkpoints, models) if one.fault is None)
    return next(complete, None)


def restore_marker(checkpoints: Path) -> None:
    """Have verl's marker name the newest complete checkpoint, if there is one.

    A kill between the end of a checkpoint and the change of the marker leaves it behind. Call this
    only while no training writes there.

    Raises:
        OutputError: the system refuses.
    """
    newest = find_newest(checkpoints)
    if newest is not None and read_latest_step(checkpoints) != newest.step:
        write_text(checkpoints / LATEST_STEP_FILE, str(newest.step))


def examine_folder(folder: Path, models: Sequence[str]) -> FoundCheckpoint:
    """A checkpoint that the user names: without a manifest, what verl reads has to be there."""
    match = re.search(r"global_step_(\d+)$", str(folder).rstrip("/"))
    step = int(match[1]) if match else 0
    return _examine(folder, step, models, step, True)


def _examine(
    folder: Path, step: int, models: Sequence[str], marked: int | None, has_marker: bool
) -> FoundCheckpoint:
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        return FoundCheckpoint(folder, step, None, str(error), is_lost=True)
    if manifest is not None:
        fault = find_wrong_size(folder, manifest.parts) or _find_missing_model(folder, models)
        return FoundCheckpoint(folder, step, manifest, fault, is_lost=fault is not None)
    fault = next(_find_faults(folder, models), None)
    if fault is None and not has_marker:
        fault = f"it was not finished: there is no {LATEST_STEP_FILE}"
    elif fault is None and marked is not None and marked < step:
        fault = f"it was not finished: {LATEST_STEP_FILE} names step {marked}"
    elif fault is None and marked is None and not (folder / POSITION_FILE).is_file():
        fault = f"{POSITION_FILE} is missing"
    return FoundCheckpoint(folder, step, None, fault, is_lost=bool(fault) and marked == step)


def _find_missing_model(folder: Path, models: Sequence[str]) -> str | None:
    missing = [model for model in models if not (folder / model).is_dir()]
    return f"{missing[0]} is missing" if missing else None


def _find_faults(folder: Path, models: Sequence[str]) -> Iterator[str]:
    """What of a checkpoint without a manifest is missing, or cut off."""
    if missing := _find_missing_model(folder, models):
        yield missing
        return
    for model in models:
        yield from _find_model_faults(folder / model)
    position = folder / POSITION_FILE
    if position.is_file() and not zipfile.is_zipfile(position):
        yield f"{POSITION_FILE} is cut off or damaged"


def _find_model_faults(folder: Path) -> Iterator[str]:
    if any((folder / name).is_dir() for name in _DISTRIBUTED):
        if not (folder / _CONTENTS).is_file():
            yield f"{folder.name}/{_CONTENTS} is missing: it was not finished"
        return
    shards = [match for path in folder.iterdir() if (match := _SHARD.fullmatch(path.name))]
    if not any(match[1] == "model" for match in shards):
        yield f"{folder.name} has no model_world_size_<n>_rank_<i>.pt"
        return
    names = {match[0] for match in shards}
    for kind, ranks in sorted({(match[1], int(match[2])) for match in shards}):
        for rank in range(ranks):
            name = f"{kind}_world_size_{ranks}_rank_{rank}.pt"
            if name not in names:
                yield f"{folder.name}/{name} is missing"
            elif not zipfile.is_zipfile(folder / name):  # its end tells
                yield f"{folder.name}/{name} is cut off or damaged"


def _get_serial(found: FoundCheckpoint) -> int:
    assert found.manifest is not None
    return found.manifest.serial
