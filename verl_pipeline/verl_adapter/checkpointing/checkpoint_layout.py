"""Where verl keeps the checkpoints of a run, for those who read them while or after it writes.

    <checkpoints>/latest_checkpointed_iteration.txt    verl writes it last: the complete step
    <checkpoints>/global_step_<k>/actor                one shard for each of n trainer ranks:
                                                       model_world_size_<n>_rank_<i>.pt
    <checkpoints>/global_step_<k>/critic, data.pt      the critic's; the data loader's position
    <checkpoints>/global_step_<k>/held_batches.arrow   ours (:mod:`.trajectories.held_batches`)

Invariant: a step is complete when verl's marker says so, not when its folder exists.
"""

import re
from pathlib import Path

from verl_pipeline.outputs.files import write_text

LATEST_STEP_FILE = "latest_checkpointed_iteration.txt"


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
    text = marker.read_text().strip() if marker.is_file() else ""
    return int(text) if text.isdigit() else None


def repair_marker(checkpoints: Path) -> None:
    """Restore a marker that a kill left empty. Call it only while no training writes there.

    verl opens, and thereby empties, the marker after it has written the rest of the checkpoint. The
    checkpoint of an empty marker is therefore the newest folder.
    """
    marker = checkpoints / LATEST_STEP_FILE
    if not marker.is_file() or marker.read_text().strip():
        return
    steps = list_steps(checkpoints)
    if steps:
        write_text(marker, str(max(steps)))
    else:
        marker.unlink()


def find_shard_ranks(step_folder: Path) -> set[int]:
    """Numbers of trainer ranks that wrote the actor's shards in a step's folder."""
    matches = (
        re.match(r"model_world_size_(\d+)_rank_\d+\.pt$", path.name)
        for path in (step_folder / "actor").glob("model_world_size_*_rank_*.pt")
    )
    return {int(match[1]) for match in matches if match}
