"""Where the checkpoints of a run lie, for those who read them while or after it writes.

    <checkpoints>/latest_checkpointed_iteration.txt    verl's marker: the newest complete step
    <checkpoints>/global_step_<k>/actor                one shard for each of n trainer ranks:
                                                       model_world_size_<n>_rank_<i>.pt
    <checkpoints>/global_step_<k>/critic, data.pt      the critic's; the data loader's position
    <checkpoints>/global_step_<k>/held_batches.arrow   ours (:mod:`.trajectories.held_batches`)
    <checkpoints>/global_step_<k>/checkpoint.json      ours: what belongs to it
                                                       (:mod:`.checkpoint_manifest`)
    <checkpoints>/.writing-*                           a checkpoint that is being written, or that a
                                                       kill has left

Invariant: a step is complete when its manifest, or verl's marker, says so, not when its folder
exists (:mod:`.checkpoint_search`).
"""

import re
from pathlib import Path

LATEST_STEP_FILE = "latest_checkpointed_iteration.txt"
POSITION_FILE = "data.pt"
MODELS = ("actor", "critic")
# Batches that are sampled and not trained: our file, and verl's own copy of TransferQueue.
HELD_BATCHES, QUEUE_SNAPSHOT = "held_batches.arrow", "transfer_queue"
SCRATCH_PREFIX = ".writing-"


def get_step_folder(checkpoints: Path, step: int) -> Path:
    """verl's folder of a step."""
    return checkpoints / f"global_step_{step}"


def list_steps(checkpoints: Path) -> list[int]:
    """Steps that have a folder, complete or not, in order."""
    matches = (
        re.fullmatch(r"global_step_(\d+)", folder.name)
        for folder in checkpoints.glob("global_step_*")
    )
    return sorted(int(match[1]) for match in matches if match)


def read_latest_step(checkpoints: Path) -> int | None:
    """The step that the marker names; None if there is none, or verl is writing it now."""
    marker = checkpoints / LATEST_STEP_FILE
    text = marker.read_text(errors="replace").strip() if marker.is_file() else ""
    return int(text) if text.isdecimal() else None


def find_shard_ranks(step_folder: Path) -> set[int]:
    """Numbers of trainer ranks that wrote the actor's shards in a step's folder."""
    matches = (
        re.match(r"model_world_size_(\d+)_rank_\d+\.pt$", path.name)
        for path in (step_folder / "actor").glob("model_world_size_*_rank_*.pt")
    )
    return {int(match[1]) for match in matches if match}
