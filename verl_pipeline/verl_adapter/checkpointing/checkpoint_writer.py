"""Gives a written checkpoint its name, and removes earlier ones.

Invariants:
* A checkpoint is written beside its place, and gets its name by one rename once all of it is on the
  disk. verl's marker follows by another rename. A kill at any moment leaves both as they were, or
  as they will be.
* Removal begins with one rename, after which the checkpoint counts as absent.
* Files of the user in a step's folder stay.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from verl_pipeline.outputs.errors import OutputError, name_system_errors
from verl_pipeline.outputs.files import save_folder, write_text
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    HELD_BATCHES,
    LATEST_STEP_FILE,
    MODELS,
    POSITION_FILE,
    QUEUE_SNAPSHOT,
    SCRATCH_PREFIX,
    get_step_folder,
    list_steps,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    MANIFEST,
    TOMBSTONE,
    Manifest,
    Part,
    find_wrong_size,
    list_files,
    seal_parts,
    write_manifest,
)

# A network file system may show late what other nodes wrote.
SEEN_WITHIN_S = 20.0
_STATE = (POSITION_FILE, HELD_BATCHES, QUEUE_SNAPSHOT)
_REPLACED = "replaced-"


def remove_scratch(checkpoints: Path) -> None:
    """Remove what killed processes have left of checkpoints that they were writing.

    A folder that had been moved out of the way of one that then got no name is put back.
    """
    for left in checkpoints.glob(f"{SCRATCH_PREFIX}*"):
        for replaced in left.glob(f"{_REPLACED}*"):
            place = checkpoints / replaced.name.removeprefix(_REPLACED)
            if not os.path.lexists(place):
                with contextlib.suppress(OSError):
                    replaced.rename(place)
        shutil.rmtree(left, ignore_errors=True)


def complete_parts(
    folder: Path, sealed: Iterable[Part], seconds: float = SEEN_WITHIN_S
) -> list[Part]:
    """``sealed``, which the ranks have seen in ``folder``, and what they have not.

    Raises:
        OutputError: what a rank has written does not show here within ``seconds``.
    """
    parts = {part.path: part for part in sealed}
    deadline = time.monotonic() + seconds
    while fault := find_wrong_size(folder, list(parts.values())):
        if time.monotonic() > deadline:
            raise OutputError(
                f"{folder}: not what the trainer's ranks wrote there ({fault}); name a folder of a "
                "file system that all nodes share (trainer.default_local_dir)"
            )
        time.sleep(0.2)
    own = seal_parts(folder, [path for path in list_files(folder) if path not in parts])
    return sorted([*parts.values(), *own], key=lambda part: part.path)


def publish(scratch: Path, checkpoints: Path, manifest: Manifest) -> Path:
    """Give the checkpoint of ``manifest``, whose parts lie in ``scratch``, its name and the marker.

    What lies at its place (an incomplete checkpoint, or an abandoned one) is replaced.

    Returns:
        The step's folder.

    Raises:
        OutputError: the system refuses.
    """
    written = get_step_folder(scratch, manifest.step)
    place = get_step_folder(checkpoints, manifest.step)
    write_manifest(written, manifest)
    replaced = scratch / f"{_REPLACED}{place.name}"
    with name_system_errors(place):
        if os.path.lexists(place):
            place.rename(replaced)
        written.rename(place)
    save_folder(checkpoints)
    write_text(checkpoints / LATEST_STEP_FILE, str(manifest.step))
    if replaced.is_dir() and not replaced.is_symlink():
        _keep_foreign_files(replaced, place)
    shutil.rmtree(scratch, ignore_errors=True)
    return place


def _keep_foreign_files(replaced: Path, place: Path) -> None:
    for path in replaced.iterdir():
        if path.name not in {*MODELS, *_STATE, MANIFEST, TOMBSTONE}:
            path.rename(place / path.name)


def remove_model(folder: Path, model: str) -> None:
    """Remove a model from a checkpoint with a manifest, which is none any more then."""
    if (folder / MANIFEST).exists():
        (folder / MANIFEST).rename(folder / TOMBSTONE)
    shutil.rmtree(folder / model, ignore_errors=True)


def finish_removals(checkpoints: Path) -> None:
    """Remove what is left of checkpoints that have lost a model, but their other models."""
    for step in list_steps(checkpoints):
        folder = get_step_folder(checkpoints, step)
        if (folder / TOMBSTONE).exists():
            remove_state(folder)
            if not any((folder / model).is_dir() for model in MODELS):
                (folder / TOMBSTONE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # only an empty one goes
            folder.rmdir()


def remove_state(folder: Path) -> None:
    """Remove a step's position in the data and its sampled batches."""
    for name in _STATE:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name, ignore_errors=True)
        else:
            (folder / name).unlink(missing_ok=True)
