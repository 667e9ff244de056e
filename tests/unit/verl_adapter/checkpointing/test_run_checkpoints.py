"""Pruning and resuming beside verl: what is removed when, and what is refused before a model loads.

verl's part is played by a writer of the same folders; its engines and TransferQueue itself are in
``integration/test_held_batches.py`` and ``e2e/test_resume.py``.
"""

import json

import pytest
from omegaconf import OmegaConf

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checkpointing import run_checkpoints
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import LATEST_STEP_FILE
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints
from verl_pipeline.verl_adapter.checks.queue_capacity import UNITS
from verl_pipeline.verl_adapter.trajectories.held_batches import (
    FILE_NAME,
    SNAPSHOT_NAME,
    HeldBatchesError,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The checkpoint folder; held batches are a word in it."""

    def save(path, step, lead):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"after {step}")

    monkeypatch.setattr(run_checkpoints, "save_held_batches", save)
    monkeypatch.setattr(run_checkpoints, "check_checkpoint_folder", lambda _config: None)
    return tmp_path / "checkpoints"


def write_step(folder, step, models=("actor",)):
    """What verl writes, in its order."""
    for model in models:
        (folder / f"global_step_{step}" / model).mkdir(parents=True, exist_ok=True)
    (folder / f"global_step_{step}" / "data.pt").write_text("")
    (folder / LATEST_STEP_FILE).write_text(str(step))


def list_parts(folder, part):
    return sorted(int(path.parent.name.split("_")[-1]) for path in folder.glob(f"*/{part}"))


def make_config(folder, *overrides):
    """What verl's configuration has of it, plus overrides."""
    trainer = {"default_local_dir": str(folder), "resume_mode": "auto", "resume_from_path": None}
    limits = {"max_actor_ckpt_to_keep": None, "max_critic_ckpt_to_keep": None}
    base = {
        "trainer": trainer | limits,
        "algorithm": {"adv_estimator": "grpo"},
        "critic": {"enable": False},
        "actor_rollout_ref": {"actor": {"checkpoint": {"async_save": False}}},
    }
    config = OmegaConf.merge(OmegaConf.create(base), OmegaConf.from_dotlist(list(overrides)))
    OmegaConf.set_struct(config, True)
    return config


@pytest.mark.parametrize("keep", [1, 2])
def test_an_earlier_checkpoint_goes_only_after_the_next_is_complete(folder, keep):
    config = make_config(folder, f"trainer.max_actor_ckpt_to_keep={keep}")
    checkpoints = RunCheckpoints(config)
    for step in (2, 4, 6, 8):
        with checkpoints.save_step(step, step):
            # verl would remove earlier ones by itself, before the new one is complete.
            assert config.trainer.max_actor_ckpt_to_keep is None
            (folder / f"global_step_{step}" / "actor").mkdir()
            kept = list_parts(folder, "actor")
            assert kept == [s for s in (2, 4, 6, 8) if s <= step][-max(keep, 2) :]
            write_step(folder, step)
        assert config.trainer.max_actor_ckpt_to_keep == keep
    assert list_parts(folder, "actor") == list_parts(folder, FILE_NAME) == [2, 4, 6, 8][-keep:]
    assert list_parts(folder, "data.pt") == [2, 4, 6, 8]


def test_a_checkpoint_that_fails_removes_nothing(folder):
    config = make_config(folder, "trainer.max_actor_ckpt_to_keep=1")
    checkpoints = RunCheckpoints(config)
    with checkpoints.save_step(2, 2):
        write_step(folder, 2)
    with pytest.raises(OSError, match="disk is full"), checkpoints.save_step(4, 4):
        raise OSError("disk is full")
    assert list_parts(folder, "actor") == [2]
    assert config.trainer.max_actor_ckpt_to_keep == 1
    assert (folder / LATEST_STEP_FILE).read_text() == "2"


def test_actor_and_critic_have_limits_of_their_own(folder):
    config = make_config(
        folder,
        "critic.enable=True",
        "trainer.max_actor_ckpt_to_keep=2",
        "trainer.max_critic_ckpt_to_keep=1",
    )
    checkpoints = RunCheckpoints(config)
    for step in (2, 4, 6):
        with checkpoints.save_step(step, step):
            write_step(folder, step, ("actor", "critic"))
    assert list_parts(folder, "actor") == [4, 6]
    # Without its critic, step 4 is no checkpoint to resume from.
    assert list_parts(folder, "critic") == list_parts(folder, FILE_NAME) == [6]


def test_models_of_earlier_runs_stay_and_batches_without_a_model_go(folder):
    for step in (2, 4):
        write_step(folder, step)
        (folder / f"global_step_{step}" / FILE_NAME).write_text("")
    (folder / "global_step_3" / SNAPSHOT_NAME).mkdir(parents=True)
    config = make_config(folder, "trainer.max_actor_ckpt_to_keep=1", "trainer.resume_mode=disable")
    checkpoints = RunCheckpoints(config)
    (folder / "global_step_2" / "actor").rmdir()
    with checkpoints.save_step(6, 6):
        write_step(folder, 6)
    assert list_parts(folder, "actor") == list_parts(folder, FILE_NAME) == [4, 6]
    assert list_parts(folder, SNAPSHOT_NAME) == []


def test_verl_prunes_itself_what_it_writes_later(folder):
    saved_later = "actor_rollout_ref.actor.checkpoint.async_save=True"
    config = make_config(folder, "trainer.max_actor_ckpt_to_keep=1", saved_later)
    checkpoints = RunCheckpoints(config)
    for step in (2, 4):
        with checkpoints.save_step(step, step):
            assert config.trainer.max_actor_ckpt_to_keep == 1
            write_step(folder, step)
    assert list_parts(folder, "actor") == [2, 4]


def resume(folder, *overrides):
    return RunCheckpoints(make_config(folder, *overrides))


def test_a_copy_by_another_number_of_units_is_refused_with_the_fix(folder):
    write_step(folder, 4)
    manifest = folder / "global_step_4" / SNAPSHOT_NAME / "simple_storage"
    manifest.mkdir(parents=True)
    (manifest / "storage_unit_info.json").write_text(json.dumps([{}] * 8))
    with pytest.raises(ConfigError, match=f"{UNITS}=3: .* set {UNITS}=8 to resume"):
        resume(folder, f"{UNITS}=3")
    resume(folder, f"{UNITS}=8")
    # With a file of held batches, the copy is not read.
    (folder / "global_step_4" / FILE_NAME).write_text("half")
    with pytest.raises(HeldBatchesError, match=f"{FILE_NAME}: cannot be read"):
        resume(folder, f"{UNITS}=3")


def test_a_marker_that_a_kill_left_empty_is_repaired(folder):
    write_step(folder, 4)
    (folder / LATEST_STEP_FILE).write_text("")
    resume(folder)
    assert (folder / LATEST_STEP_FILE).read_text() == "4"


def test_a_folder_without_a_checkpoint_is_a_run_that_begins(folder):
    resume(folder).restore_batches(0)


def test_held_batches_of_another_size_are_refused_with_both_numbers(folder, monkeypatch):
    write_step(folder, 2)
    (folder / "global_step_2" / FILE_NAME).write_text("")
    prompts = [f"b3p{position}" for position in range(4)]
    part = {"key": [*prompts, "b3p0_0_0"], "tag": [*[{"is_prompt": True}] * 4, {}]}
    monkeypatch.setattr(run_checkpoints, "read_parts", lambda _path: iter([part]))
    RunCheckpoints(make_config(folder, "data.train_batch_size=4"))
    with pytest.raises(ConfigError, match=r"train_batch_size=8: batch 3 .* with 4 prompts"):
        RunCheckpoints(make_config(folder, "data.train_batch_size=8"))
