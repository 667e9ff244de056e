"""A run that only writes checkpoints: our classes, and verl's files in verl's order.

Models and positions are small files in torch's format, held batches a text. So hundreds of kills
take seconds, and each can be placed.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.verl_adapter.checkpointing import resumed_checkpoint, run_checkpoints
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    HELD_BATCHES,
    LATEST_STEP_FILE,
    MODELS,
    get_step_folder,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    find_damage,
    list_files,
    seal_parts,
    select_share,
)
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints

RANKS = 2
# What CPython tells before it touches a file.
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


def make_config(folder, *overrides):
    """What verl's configuration has of checkpoints, plus overrides."""
    trainer = {"default_local_dir": str(folder), "resume_mode": "auto", "resume_from_path": None}
    limits = {"max_actor_ckpt_to_keep": None, "max_critic_ckpt_to_keep": None}
    base = {
        "trainer": trainer | limits,
        "algorithm": {"adv_estimator": "grpo"},
        "critic": {"enable": False},
        "data": {"train_batch_size": 2},
        "actor_rollout_ref": {"actor": {"checkpoint": {"async_save": False}}},
    }
    config = OmegaConf.merge(OmegaConf.create(base), OmegaConf.from_dotlist(list(overrides)))
    OmegaConf.set_struct(config, True)
    return config


def write_tensor(path, step):
    """A small file in torch's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        torch.save({"step": step}, file)


def write_step(folder, step, models=("actor",), ranks=RANKS):
    """What verl writes, in its order; its marker last, emptied before it is written."""
    place = get_step_folder(Path(folder), step)
    for model in models:
        (place / model).mkdir(parents=True, exist_ok=True)
        for kind in ("model", "optim", "extra_state"):
            for rank in range(ranks):
                write_tensor(place / model / f"{kind}_world_size_{ranks}_rank_{rank}.pt", step)
        (place / model / "huggingface").mkdir(exist_ok=True)
        (place / model / "huggingface" / "config.json").write_text("{}")
    write_tensor(place / "data.pt", step)
    with (Path(folder) / LATEST_STEP_FILE).open("w") as file:
        file.write(str(step))


def save_batches(path, step, lead):
    """Stands for :func:`.held_batches.save_held_batches`, which needs a queue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{step}-{lead}")


def check_parts(folder, parts):
    """What the ranks do with the parts of the models."""
    shares = (
        [part for part in parts if part.path in select_share([p.path for p in parts], rank, RANKS)]
        for rank in range(RANKS)
    )
    return next((fault for share in shares if (fault := find_damage(folder, share))), None)


def seal(folder):
    """What the ranks do after verl's part."""
    paths = [path for path in list_files(folder) if path.partition("/")[0] in MODELS]
    return [
        part
        for rank in range(RANKS)
        for part in seal_parts(folder, select_share(paths, rank, RANKS))
    ]


class WrittenRun:
    """One attempt: chooses a checkpoint, and writes the following ones."""

    def __init__(self, folder, *overrides):
        self.folder, self.config = Path(folder), make_config(folder, *overrides)
        self.checkpoints = RunCheckpoints(self.config)

    def resume(self):
        """The step that verl would load, after reading it; 0 if it begins anew."""
        with self.checkpoints.load_newest(check_parts):
            settings = self.config.trainer
            if settings.resume_mode == "disable":
                return 0
            assert settings.resume_mode == "resume_path"
            return read_step(Path(settings.resume_from_path))

    def save(self, step, models=("actor",), ranks=RANKS):
        """The checkpoint of a step, with one batch ahead."""
        self.checkpoints.save_step(
            step,
            step + 1,
            lambda: write_step(self.config.trainer.default_local_dir, step, models, ranks),
            seal,
        )
        self.checkpoints.prune(step)


def read_step(folder):
    """The step of a checkpoint, all of whose files must agree on it."""
    step = int(folder.name.removeprefix("global_step_"))
    shards = sorted((folder / "actor").glob("*.pt"))
    assert len(shards) == 3 * RANKS
    for path in [*shards, folder / "data.pt"]:
        assert torch.load(path) == {"step": step}, path
    assert (folder / HELD_BATCHES).read_text() == f"{step}-{step + 1}"
    return step


def stand_in_for_queue(patch):
    """Have ``patch`` (pytest's, or ``setattr``) replace what needs Ray and TransferQueue."""
    patch(run_checkpoints, "save_held_batches", save_batches)
    patch(run_checkpoints, "check_checkpoint_folder", lambda _config: None)
    patch(resumed_checkpoint, "read_parts", lambda _path: iter([]))


def skip_saving(patch):
    """Leave out ``fsync``: a killed process loses nothing that it has written, a machine may."""
    patch(os, "fsync", lambda _descriptor: None)


def kill_at_event(folder, number):
    """Have this process killed before its ``number``-th operation on a file below ``folder``."""
    left = [number]

    def count(event, arguments):
        if event in FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def run_until_killed(folder, last_step, number, *overrides):
    """Fork an attempt that trains up to ``last_step`` and is killed; returns whether it was.

    Args:
        number: the operation on files before which it is killed.
    """
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
        try:
            run = WrittenRun(folder, *overrides)
            begin = run.resume() + 1
            kill_at_event(folder, number)
            for step in range(begin, last_step + 1):
                run.save(step)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


if __name__ == "__main__":  # resumes in a folder and writes one checkpoint more
    stand_in_for_queue(setattr)
    attempt = WrittenRun(sys.argv[1])
    try:
        attempt.save(attempt.resume() + 1)
    except OutputError as error:
        sys.exit(f"error: {error}")
