"""Writing, pruning and resuming beside verl: what is complete when, and what is removed when.

verl's part is played by a writer of the same files; its engines and TransferQueue itself are in
``integration/test_held_batches.py``, ``e2e/test_resume.py`` and ``tests/chaos``.
"""

import json
import os
import resource
import shutil
import sys
from contextlib import contextmanager

import pytest

from tests.helpers.small_disk import run_on_disk
from tests.helpers.written_checkpoints import (
    WrittenRun,
    make_config,
    seal,
    stand_in_for_queue,
    write_step,
)
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checkpointing import resumed_checkpoint
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    HELD_BATCHES,
    LATEST_STEP_FILE,
    QUEUE_SNAPSHOT,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import MANIFEST
from verl_pipeline.verl_adapter.checkpointing.resumed_checkpoint import ResumedCheckpoint
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints
from verl_pipeline.verl_adapter.checks.queue_capacity import UNITS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    stand_in_for_queue(monkeypatch.setattr)
    return tmp_path / "checkpoints"


def list_parts(folder, part):
    return sorted(int(path.parent.name.split("_")[-1]) for path in folder.glob(f"*/{part}"))


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("keep", [1, 2])
def test_an_earlier_checkpoint_goes_only_after_the_next_is_complete(folder, keep):
    config = make_config(folder, f"trainer.max_actor_ckpt_to_keep={keep}")
    checkpoints = RunCheckpoints(config)
    for step in (2, 4, 6, 8):

        def write(step=step):
            # verl would remove earlier ones by itself, and name the new one before it is complete.
            assert config.trainer.max_actor_ckpt_to_keep is None
            assert not (folder / f"global_step_{step}").exists()
            expected = [s for s in (2, 4, 6, 8) if s < step][-max(keep - 1, 1) :]
            assert list_parts(folder, MANIFEST) == expected
            write_step(config.trainer.default_local_dir, step)

        checkpoints.save_step(step, step, write, seal)
        assert (folder / LATEST_STEP_FILE).read_text() == str(step)
        assert config.trainer.max_actor_ckpt_to_keep == keep
        checkpoints.prune(step)
        kept = [s for s in (2, 4, 6, 8) if s <= step][-keep:]
        assert list_names(folder) == [*[f"global_step_{s}" for s in kept], LATEST_STEP_FILE]
    assert list_parts(folder, HELD_BATCHES) == [2, 4, 6, 8][-keep:]


def test_a_checkpoint_that_fails_removes_nothing_and_leaves_nothing(folder):
    run = WrittenRun(folder, "trainer.max_actor_ckpt_to_keep=1")
    run.save(2)
    before = list_names(folder)

    def fail():
        write_step(run.config.trainer.default_local_dir, 4)
        raise RuntimeError("a rank died")

    with pytest.raises(RuntimeError, match="a rank died"):
        run.checkpoints.save_step(4, 4, fail, seal)
    assert list_names(folder) == before
    assert run.config.trainer.max_actor_ckpt_to_keep == 1
    assert run.config.trainer.default_local_dir == str(folder)
    assert WrittenRun(folder).resume() == 2


def test_a_full_disk_is_named_whatever_broke(folder, monkeypatch):
    run = WrittenRun(folder)
    run.save(2)
    full = shutil.disk_usage(folder)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)

    def fail():
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    with pytest.raises(OutputError, match="the disk is full, so the checkpoint of step 4"):
        run.checkpoints.save_step(4, 4, fail, seal)
    assert WrittenRun(folder).resume() == 2


@contextmanager
def without_descriptors():
    """This process can open nothing more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield lowest
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_lack_of_file_descriptors_is_named_and_leaves_what_was_there(folder):
    run = WrittenRun(folder)
    run.save(2)
    with without_descriptors() as limit, pytest.raises(OutputError) as raised:
        run.save(4)
    assert f"no file descriptors are left (ulimit -n is {limit} here), so the checkpoint of st" in (
        str(raised.value)
    )
    assert WrittenRun(folder).resume() == 2
    run.save(4)
    assert WrittenRun(folder).resume() == 4


def test_nor_does_a_rank_without_file_descriptors_spoil_anything(folder):
    run = WrittenRun(folder)
    run.save(2)

    def fail():
        raise RuntimeError("[Errno 24] Too many open files: 'model_world_size_2_rank_1.pt'")

    with pytest.raises(OutputError, match="no file descriptors are left .* raise that limit"):
        run.checkpoints.save_step(4, 4, fail, seal)
    assert WrittenRun(folder).resume() == 2


@pytest.mark.slow
def test_a_real_full_disk_leaves_what_was_there(folder):
    WrittenRun(folder).save(1)
    program = (sys.executable, "-m", "tests.helpers.written_checkpoints", str(folder))
    run = run_on_disk("full", folder, *program)
    assert run.exit_code == 1
    assert f"error: {folder}: the disk is full, so the checkpoint of step 2 could" in run.output
    assert run.after == run.before
    # With room again, the run goes on.
    next_run = WrittenRun(folder)
    assert next_run.resume() == 1
    next_run.save(2)


def test_actor_and_critic_have_limits_of_their_own(folder):
    run = WrittenRun(
        folder,
        "critic.enable=True",
        "trainer.max_actor_ckpt_to_keep=2",
        "trainer.max_critic_ckpt_to_keep=1",
    )
    for step in (2, 4, 6):
        run.save(step, ("actor", "critic"))
    assert list_parts(folder, "actor") == [4, 6]
    # Without its critic, step 4 is no checkpoint to resume from.
    assert list_parts(folder, "critic") == [6]
    assert list_parts(folder, HELD_BATCHES) == list_parts(folder, MANIFEST) == [6]


def test_every_attempt_of_a_run_removes_what_earlier_ones_wrote_under_a_limit(folder):
    write_step(folder, 1)  # verl's own, of no limit that we know
    WrittenRun(folder).save(2)  # under no limit
    for step in (3, 4, 5):
        run = WrittenRun(folder, "trainer.max_actor_ckpt_to_keep=1")
        assert run.resume() == step - 1
        run.save(step)
    assert list_parts(folder, "actor") == [1, 2, 5]
    # A run that begins anew in the same folder is another run.
    WrittenRun(folder, "trainer.max_actor_ckpt_to_keep=1", "trainer.resume_mode=disable").save(1)
    assert list_parts(folder, "actor") == [1, 2, 5]


def test_files_of_the_user_stay_when_a_checkpoint_is_removed_or_replaced(folder):
    run = WrittenRun(folder, "trainer.max_actor_ckpt_to_keep=1")
    run.save(1)
    (folder / "global_step_1" / "scores.json").write_text("mine")
    run.save(2)
    assert list_names(folder / "global_step_1") == ["scores.json"]
    write_step(folder, 3)
    (folder / "global_step_3" / "notes").mkdir()
    run.save(3)
    assert (folder / "global_step_3" / "notes").is_dir()
    assert WrittenRun(folder).resume() == 3


def test_verl_prunes_itself_what_it_writes_later(folder, capsys):
    saved_later = "actor_rollout_ref.actor.checkpoint.async_save=True"
    config = make_config(folder, "trainer.max_actor_ckpt_to_keep=1", saved_later)
    checkpoints = RunCheckpoints(config)
    for step in (2, 4):

        def write(step=step):
            assert config.trainer.max_actor_ckpt_to_keep == 1
            write_step(config.trainer.default_local_dir, step)

        assert checkpoints.save_step(step, step, write, seal) == folder / f"global_step_{step}"
        checkpoints.prune(step)
    assert list_parts(folder, "actor") == [2, 4]
    assert list_parts(folder, MANIFEST) == []
    assert "async_save=True: verl names and removes" in capsys.readouterr().out
    shutil.rmtree(folder / "global_step_2" / "actor")
    checkpoints.prune(4)
    assert list_parts(folder, HELD_BATCHES) == [4]


def resume(folder, *overrides):
    return RunCheckpoints(make_config(folder, *overrides))


def test_a_copy_by_another_number_of_units_is_refused_with_the_fix(folder):
    write_step(folder, 4)
    manifest = folder / "global_step_4" / QUEUE_SNAPSHOT / "simple_storage"
    manifest.mkdir(parents=True)
    (manifest / "storage_unit_info.json").write_text(json.dumps([{}] * 8))
    with pytest.raises(ConfigError, match=f"{UNITS}=3: .* set {UNITS}=8 to resume"):
        resume(folder, f"{UNITS}=3")
    resume(folder, f"{UNITS}=8")


def test_a_folder_without_a_checkpoint_is_a_run_that_begins(folder):
    run = WrittenRun(folder)
    assert run.resume() == 0
    run.checkpoints.restore_batches(0)


def test_held_batches_of_another_size_are_refused_with_both_numbers(folder, monkeypatch):
    write_step(folder, 2)
    (folder / "global_step_2" / HELD_BATCHES).write_text("")
    prompts = [f"b3p{position}" for position in range(4)]
    part = {"key": [*prompts, "b3p0_0_0"], "tag": [*[{"is_prompt": True}] * 4, {}]}
    monkeypatch.setattr(resumed_checkpoint, "read_parts", lambda _path: iter([part]))
    RunCheckpoints(make_config(folder, "data.train_batch_size=4"))
    with pytest.raises(ConfigError, match=r"train_batch_size=8: batch 3 .* with 4 prompts"):
        RunCheckpoints(make_config(folder, "data.train_batch_size=8"))


def test_who_gives_a_held_batch_up_as_the_refusal_says_resumes_from_the_same_step(folder):
    run = WrittenRun(folder)
    run.save(2)
    run.save(4)
    (folder / "global_step_4" / HELD_BATCHES).unlink()
    config = make_config(folder)
    assert ResumedCheckpoint(config, ["actor"]).found.step == 2  # lost, as far as anybody knows
    (folder / "global_step_4" / MANIFEST).unlink()
    assert ResumedCheckpoint(config, ["actor"]).found.step == 4
