"""Which checkpoint a run goes on from, whatever has happened to the newest one."""

import json
import os
import re
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from tests.helpers.written_checkpoints import (
    RANKS,
    WrittenRun,
    run_until_killed,
    skip_saving,
    stand_in_for_queue,
    write_step,
)
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    HELD_BATCHES,
    LATEST_STEP_FILE,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import MANIFEST
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import find_newest, restore_marker

SHARD = f"actor/model_world_size_{RANKS}_rank_1.pt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    stand_in_for_queue(monkeypatch.setattr)
    return tmp_path / "checkpoints"


def write_run(folder, *steps):
    run = WrittenRun(folder)
    for step in steps:
        run.save(step)


def remove(name):
    return lambda folder: (folder / "global_step_4" / name).unlink()


def cut(name):
    def damage(folder):
        path = folder / "global_step_4" / name
        os.truncate(path, path.stat().st_size - 7)

    return damage


def flip(name):
    def damage(folder):
        path = folder / "global_step_4" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return damage


# What happens to the newest checkpoint, and what the line says about it.
DAMAGES = {
    "a missing shard": (remove(SHARD), f"{SHARD}: No such file"),
    "a truncated shard": (cut(SHARD), rf"{SHARD} has \d+ of \d+ bytes"),
    "a changed bit of a shard": (flip(SHARD), f"{SHARD} is damaged: its checksum is"),
    "no data.pt": (remove("data.pt"), "data.pt: No such file"),
    "a changed bit of data.pt": (flip("data.pt"), "data.pt is damaged"),
    "no batches": (remove(HELD_BATCHES), f"{HELD_BATCHES}: No such file"),
    "a truncated manifest": (cut(MANIFEST), f"{MANIFEST} is damaged"),
    "no folder": (lambda folder: shutil.rmtree(folder / "global_step_4"), None),
    "a missing actor": (
        lambda folder: shutil.rmtree(folder / "global_step_4" / "actor"),
        "No such file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_falls_back_to_the_older_checkpoint_and_says_why(folder, capsys, damage):
    write_run(folder, 2, 4)
    do_damage, line = DAMAGES[damage]
    do_damage(folder)
    assert WrittenRun(folder).resume() == 2
    printed = capsys.readouterr().out
    if line is not None:
        assert [text for text in printed.splitlines() if "passed over" in text]
        assert re.search(line, printed), printed
    assert f"goes on from {folder / 'global_step_2'} (9 checksums agree)" in printed


@pytest.mark.parametrize("text", ["", "x", "9", "²", None])
def test_verls_marker_does_not_decide(folder, text):
    write_run(folder, 2, 4)
    if text is None:
        (folder / LATEST_STEP_FILE).unlink()
    else:
        (folder / LATEST_STEP_FILE).write_text(text)
    assert WrittenRun(folder).resume() == 4
    restore_marker(folder)
    assert find_latest_ckpt_path(str(folder)) == str(folder / "global_step_4")


def test_a_run_whose_only_checkpoint_is_damaged_does_not_begin_anew(folder):
    write_run(folder, 4)
    DAMAGES["a changed bit of a shard"][0](folder)
    with pytest.raises(ConfigError, match="none of its checkpoints is complete any more.*damaged"):
        WrittenRun(folder).resume()
    DAMAGES["a missing shard"][0](folder)
    with pytest.raises(ConfigError, match="No such file.*; restore one, or begin anew in another"):
        WrittenRun(folder)
    assert WrittenRun(folder, "trainer.resume_mode=disable").resume() == 0


def test_a_checkpoint_that_the_user_names_is_used_or_refused(folder, tmp_path):
    write_run(folder, 2, 4)
    named = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={folder}/global_step_2")
    run = WrittenRun(folder, *named)
    assert run.resume() == 2
    run.save(3)
    # What was trained after step 2 before is another branch.
    assert find_newest(folder).step == 3
    assert WrittenRun(folder).resume() == 3
    (folder / "global_step_2" / SHARD).unlink()
    with pytest.raises(ConfigError, match=r"resume_from_path=.*global_step_2: .*rank_1\.pt: No su"):
        WrittenRun(folder, *named)


def test_checkpoints_without_a_manifest_are_used_as_verl_uses_them(folder, capsys):
    for step in (2, 4, 6):
        write_step(folder, step)
    (folder / LATEST_STEP_FILE).write_text("4")

    def resume():
        run = WrittenRun(folder)
        with run.checkpoints.load_newest(lambda *_: None):
            return run.config.trainer.resume_from_path

    assert resume() == f"{folder}/global_step_4"
    printed = capsys.readouterr().out
    assert "global_step_6: it was not finished: latest_checkpointed_iteration.txt names" in printed
    assert "written by verl or an earlier version, without checkpoint.json" in printed
    # verl empties its marker after all the rest, and removes an actor before its successor's end.
    (folder / LATEST_STEP_FILE).write_text("")
    assert resume() == f"{folder}/global_step_6"
    (folder / "global_step_6" / "data.pt").unlink()
    assert resume() == f"{folder}/global_step_4"
    os.truncate(folder / "global_step_4" / SHARD, 300)
    assert resume() == f"{folder}/global_step_2"
    (folder / LATEST_STEP_FILE).unlink()
    assert resume() is None


def test_a_manifest_of_a_newer_format_is_named(folder):
    write_run(folder, 2)
    manifest = folder / "global_step_2" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 2}))
    with pytest.raises(ConfigError, match=r"checkpoint\.json has format 2; this version reads 1"):
        WrittenRun(folder)


@pytest.mark.parametrize("stride", [19, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_before_an_operation_on_a_file_leaves_a_complete_checkpoint(
    folder, monkeypatch, stride
):
    """With a limit of 1: every kill point of writing, naming and removing a checkpoint."""
    overrides = ("trainer.max_actor_ckpt_to_keep=1",)
    skip_saving(monkeypatch.setattr)
    WrittenRun(folder, *overrides).save(1)
    killed = 0
    for number in range(1, 10**6, stride):
        place = folder.with_name(f"killed-{number}")
        shutil.copytree(folder, place)
        if not run_until_killed(place, 2, number, *overrides):
            break
        killed += 1
        run = WrittenRun(place, *overrides)
        assert run.resume() in (1, 2)
        # The next attempt is not disturbed by what is left, and leaves nothing itself.
        run.save(3)
        names = sorted(path.name for path in place.iterdir())
        assert names == ["global_step_3", LATEST_STEP_FILE]
        shutil.rmtree(place)
    assert killed >= 40 // stride


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    keep=st.sampled_from([None, 1, 2]),
    kills=st.lists(st.integers(1, 250), min_size=1, max_size=6),
)
def test_a_run_killed_again_and_again_loses_no_complete_checkpoint(tmp_path_factory, keep, kills):
    folder = tmp_path_factory.mktemp("killed") / "checkpoints"
    overrides = [f"trainer.max_actor_ckpt_to_keep={'null' if keep is None else keep}"]
    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_queue(patch.setattr)
        skip_saving(patch.setattr)
        reached = 0
        for number in kills:
            run_until_killed(folder, 6, number, *overrides)
            step = WrittenRun(folder, *overrides).resume()
            assert step >= reached
            reached = step
        assert not run_until_killed(folder, 6, 10**6, *overrides)
        run = WrittenRun(folder, *overrides)
        assert run.resume() == 6
        run.save(7)
        kept = sorted(path.name for path in folder.iterdir())
    expected = list(range(1, 8)) if keep is None else list(range(8 - keep, 8))
    assert kept == [*[f"global_step_{step}" for step in expected], LATEST_STEP_FILE]


@pytest.mark.parametrize(
    ("written", "selector", "message"),
    [
        ("similar", "learnability", "with the selector similar, not with the selector learnab"),
        ("similar", "null", "with the selector similar, not with no selector .null."),
        (None, "learnability", "with no selector .null., not with the selector learnability"),
        ("similar", "similar", None),
        (None, "null", None),
    ],
)
def test_a_checkpoint_of_another_selector_is_refused_before_a_model_is_loaded(
    folder, written, selector, message
):
    write_step(folder, 4)
    state = {"step": 4} if written is None else {"curriculum": {"selector": written}, "next": 5}
    torch.save(state, folder / "global_step_4" / "data.pt")
    override = f"trainer.v1.one_off_pipeline.curriculum.selector={selector}"
    if message is None:
        assert WrittenRun(folder, override).checkpoints is not None
        return
    with pytest.raises(ConfigError, match=f"curriculum.selector: .*global_step_4 .*{message}") as e:
        WrittenRun(folder, override)
    assert "\n" not in str(e.value)
