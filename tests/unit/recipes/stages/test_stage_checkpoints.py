"""Complete checkpoints, their model, and the transition between stages, as verl reads them."""

import json
import shutil

import pytest
from omegaconf import OmegaConf
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from verl_pipeline.recipes.deepcoder.stages.stage_checkpoints import (
    CheckpointError,
    check_checkpoint,
    find_latest_step,
    link_checkpoint,
)
from verl_pipeline.testing import tiny_run
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    LATEST_STEP_FILE,
    get_step_folder,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    MANIFEST,
    Manifest,
    find_wrong_size,
    list_files,
    read_manifest,
    seal_parts,
    write_manifest,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import (
    find_newest,
    restore_marker,
)


@pytest.fixture
def first(tmp_path, tiny_folder):
    """Checkpoints of steps 2 and 4 as our trainer writes them, and an incomplete one of verl's."""
    folder = tmp_path / "first" / "checkpoints"
    for step in (2, 4, 6):
        actor = folder / f"global_step_{step}" / "actor"
        shutil.copytree(tiny_folder / "model", actor / "huggingface")
        (actor / "model_world_size_1_rank_0.pt").write_text(str(step))
        if step < 6:
            (folder / f"global_step_{step}" / "data.pt").write_text("position")
            (folder / f"global_step_{step}" / "held_batches.arrow").write_text("batches")
            place = folder / f"global_step_{step}"
            parts = tuple(seal_parts(place, list_files(place)))
            write_manifest(place, Manifest(step, step // 2, {"actor": 2}, parts))
    (folder / LATEST_STEP_FILE).write_text("4")
    return folder


def make_config(model, trainers=1):
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": str(model)}},
            "trainer": {"nnodes": 1, "n_gpus_per_node": trainers},
        }
    )


def test_the_latest_step_is_the_one_of_verls_marker(first):
    assert find_latest_step(first) == 4
    assert find_latest_ckpt_path(str(first)) == str(get_step_folder(first, 4))
    (first / LATEST_STEP_FILE).unlink()
    assert find_latest_step(first) is None


@pytest.mark.parametrize("text", ["", "2", "6"])
def test_a_marker_that_a_kill_left_behind_names_the_newest_complete_checkpoint(first, text):
    (first / LATEST_STEP_FILE).write_text(text)
    restore_marker(first)
    assert find_latest_step(first) == 4


def test_the_next_stage_gets_weights_and_step_but_not_the_position_in_the_data(first, tmp_path):
    second = tmp_path / "second" / "checkpoints"
    second.mkdir(parents=True)
    (second / ".transition-1").mkdir()  # of a runner that was killed
    for _ in range(2):
        link_checkpoint(first, second, 4)
        folder = get_step_folder(second, 4)
        assert find_latest_ckpt_path(str(second)) == str(folder)
        assert sorted(path.name for path in folder.iterdir()) == ["actor", MANIFEST]
        # Its models can be verified, and no limit of the next stage removes them.
        manifest = read_manifest(folder)
        assert manifest is not None and manifest.keep == {}
        assert {part.path.partition("/")[0] for part in manifest.parts} == {"actor"}
        assert find_wrong_size(folder, manifest.parts) is None
        assert find_newest(second).step == 4
        assert (folder / "actor" / "model_world_size_1_rank_0.pt").read_text() == "4"
    # Killed between the folder and the marker.
    (second / LATEST_STEP_FILE).unlink()
    link_checkpoint(first, second, 4)
    assert find_latest_step(second) == 4
    moved = (tmp_path / "first").parent.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    try:
        assert (moved / "second/checkpoints/global_step_4/actor/huggingface/config.json").is_file()
    finally:
        moved.rename(tmp_path)


def test_a_removed_checkpoint_is_named(first, tmp_path):
    with pytest.raises(CheckpointError, match=r"global_step_3/actor does not exist"):
        link_checkpoint(first, tmp_path / "second" / "checkpoints", 3)


def test_the_checkpoint_of_another_model_is_refused(first, tiny_folder, tmp_path):
    folder = get_step_folder(first, 4)
    check_checkpoint(folder, make_config(tiny_folder / "model"))
    other = tiny_run.write_model(tmp_path / "other")
    published = json.loads((other / "config.json").read_text())
    for field, value in (("num_hidden_layers", 1), ("hidden_size", 32), ("vocab_size", 99)):
        layers = (
            {"layer_types": published["layer_types"][:1]} if field == "num_hidden_layers" else {}
        )
        (other / "config.json").write_text(json.dumps({**published, field: value, **layers}))
        with pytest.raises(
            CheckpointError,
            match=rf"another model: {field} is \d+ in the checkpoint, but {value} in",
        ):
            check_checkpoint(folder, make_config(other))


def test_the_checkpoint_of_another_number_of_trainers_is_refused(first, tiny_folder):
    with pytest.raises(
        CheckpointError,
        match="1 trainer ranks wrote this checkpoint, but trainer.nnodes x n_gpus_per_node=2",
    ):
        check_checkpoint(get_step_folder(first, 4), make_config(tiny_folder / "model", trainers=2))


def test_a_folder_without_a_model_is_refused(tmp_path, tiny_folder):
    with pytest.raises(CheckpointError, match="is .* a checkpoint of verl?"):
        check_checkpoint(tmp_path, make_config(tiny_folder / "model"))
