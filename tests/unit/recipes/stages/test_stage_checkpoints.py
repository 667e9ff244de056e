"""Which checkpoint is complete, whose it is, and the hand-over, as verl itself reads them."""

import json
import shutil

import pytest
from omegaconf import OmegaConf
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from recipes.deepcoder.stages import stage_checkpoints as checkpoints
from recipes.deepcoder.stages.stage_checkpoints import BadCheckpoint
from verl_pipeline.testing import tiny


@pytest.fixture
def first(tmp_path, tiny_folder):
    """Checkpoints of steps 2 and 4 of the first stage, as verl lays them out, and half a one of
    step 6.
    """
    folder = tmp_path / "first" / "checkpoints"
    for step in (2, 4, 6):
        actor = folder / f"global_step_{step}" / "actor"
        shutil.copytree(tiny_folder / "model", actor / "huggingface")
        (actor / "model_world_size_1_rank_0.pt").write_text(str(step))
        if step < 6:
            (folder / f"global_step_{step}" / "data.pt").write_text("position")
            (folder / f"global_step_{step}" / "transfer_queue").mkdir()
    (folder / checkpoints.COMPLETE).write_text("4")
    return folder


def config_of(model, trainers=1):
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": str(model)}},
            "trainer": {"nnodes": 1, "n_gpus_per_node": trainers},
        }
    )


def test_complete_is_what_verl_says(first):
    assert checkpoints.latest(first) == 4
    assert find_latest_ckpt_path(str(first)) == str(checkpoints.folder_of(first, 4))
    (first / checkpoints.COMPLETE).unlink()
    assert checkpoints.latest(first) is None


def test_a_mark_that_a_kill_left_empty_is_written_again(first):
    # verl empties the mark when all else of step 6 is written.
    (first / checkpoints.COMPLETE).write_text("")
    assert checkpoints.latest(first) is None
    checkpoints.repair(first)
    assert checkpoints.latest(first) == 6
    (first / checkpoints.COMPLETE).write_text("4")
    checkpoints.repair(first)
    assert checkpoints.latest(first) == 4


def test_the_next_stage_gets_weights_and_step_but_no_position(first, tmp_path):
    second = tmp_path / "second" / "checkpoints"
    second.mkdir(parents=True)
    (second / ".handing-over-1").mkdir()  # of a runner that was killed
    for _ in range(2):
        checkpoints.hand_over(first, second, 4)
        folder = checkpoints.folder_of(second, 4)
        assert find_latest_ckpt_path(str(second)) == str(folder)
        assert [path.name for path in folder.iterdir()] == ["actor"]
        assert (folder / "actor" / "model_world_size_1_rank_0.pt").read_text() == "4"
    # Killed between the folder and the mark
    (second / checkpoints.COMPLETE).unlink()
    checkpoints.hand_over(first, second, 4)
    assert checkpoints.latest(second) == 4
    moved = (tmp_path / "first").parent.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    try:
        assert (moved / "second/checkpoints/global_step_4/actor/huggingface/config.json").is_file()
    finally:
        moved.rename(tmp_path)


def test_a_checkpoint_that_was_removed_is_named(first, tmp_path):
    with pytest.raises(BadCheckpoint, match=r"global_step_3/actor is not there"):
        checkpoints.hand_over(first, tmp_path / "second" / "checkpoints", 3)


def test_the_checkpoint_of_another_model_is_refused(first, tiny_folder, tmp_path):
    folder = checkpoints.folder_of(first, 4)
    checkpoints.check_checkpoint(folder, config_of(tiny_folder / "model"))
    other = tiny.write_model(tmp_path / "other")
    published = json.loads((other / "config.json").read_text())
    for field, value in (("num_hidden_layers", 1), ("hidden_size", 32), ("vocab_size", 99)):
        layers = (
            {"layer_types": published["layer_types"][:1]} if field == "num_hidden_layers" else {}
        )
        (other / "config.json").write_text(json.dumps({**published, field: value, **layers}))
        with pytest.raises(BadCheckpoint, match=rf"another model: {field}=\d+ there, {value} in"):
            checkpoints.check_checkpoint(folder, config_of(other))


def test_the_checkpoint_of_another_number_of_trainers_is_refused(first, tiny_folder):
    with pytest.raises(
        BadCheckpoint, match="written by 1 trainers, which trainer.nnodes x n_gpus_per_node=2"
    ):
        checkpoints.check_checkpoint(
            checkpoints.folder_of(first, 4), config_of(tiny_folder / "model", trainers=2)
        )


def test_a_folder_without_a_model_is_refused(tmp_path, tiny_folder):
    with pytest.raises(BadCheckpoint, match="is .* a checkpoint of verl's?"):
        checkpoints.check_checkpoint(tmp_path, config_of(tiny_folder / "model"))
