"""A run that is killed with -9 again and again, at instants drawn from a seed.

``python -m tests.chaos.killed_run FOLDER --seed 1 --kills 10`` kills the run in FOLDER ten times
more and prints what hit when; with ``--finish`` it then lets it end and compares it with a run that
nobody disturbs. So a hundred kills can be spread over many calls.
"""

import argparse
import contextlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import torch

from tests.helpers.training_run import make_staleness_overrides, tail
from verl_pipeline.testing import runs
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import SCRATCH_PREFIX
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import find_damage
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import find_newest

DEADLINE_S = 300.0
# Where a kill is aimed at: within a checkpoint's write, anywhere in the training, in the start.
AIMS, WEIGHTS = ("write", "training", "start"), (5, 4, 1)
# A checkpoint of the tiny model is written in about so long, and a run starts in so long.
WRITE_S, START_S = 0.1, 20.0
# To list processes takes as long as to write a checkpoint: it is done before.
LIST_EVERY_S = 1.0
KEY = ("step", "index", "session")
SAMPLED = (*KEY, "prompt", "response", "reward", "versions")
BARRIER = "drained"


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        aim: one of :data:`AIMS`.
        seconds: after the start of the attempt.
        complete: the step of the newest complete checkpoint after it; 0 if there is none.
        in_write: whether it left a checkpoint that was being written.
        logged: the last step that had been logged.
    """

    number: int
    aim: str
    seconds: float
    complete: int
    in_write: bool
    logged: int

    def __str__(self) -> str:
        place = "within a checkpoint's write" if self.in_write else "elsewhere"
        return (
            f"kill {self.number}: aimed at {self.aim}, hit after {self.seconds:.1f} s, {place}; "
            f"logged {self.logged}, complete {self.complete}"
        )


def make_overrides(folder: Path, steps: int, mode: str) -> list[str]:
    """Overrides of a run that saves every step and keeps one checkpoint."""
    given = {
        "trainer.total_epochs": "100",
        "trainer.total_training_steps": str(steps),
        "trainer.save_freq": "1",
        "trainer.max_actor_ckpt_to_keep": "1",
        "trainer.default_local_dir": f"{folder}/checkpoints",
        "trainer.resume_mode": "auto",
        "trainer.v1.one_off_pipeline.weight_sync_mode": mode,
    }
    shared = make_staleness_overrides(folder.parent / "model")
    return [*shared, *(f"{key}={value}" for key, value in given.items())]


def run_undisturbed(folder: Path, steps: int, mode: str) -> runs.Run:
    """The same run, which nobody kills."""
    run = runs.run_training(folder, make_overrides(folder, steps, mode))
    assert run.returncode == 0, tail(run)
    return run


def kill_run(folder: Path, overrides: list[str], aim: str, dice: random.Random) -> Kill | None:
    """Start or resume the run in ``folder`` and kill all its processes; None if it ended before."""
    checkpoints = folder / "checkpoints"
    before = find_newest(checkpoints)
    reached = before.step if before else 0
    left = list_writes(checkpoints)
    steps = dice.randint(0, 2)

    def is_complete() -> bool:
        return not steps or (checkpoints / f"global_step_{reached + steps}").is_dir()

    def is_writing() -> bool:
        return bool(list_writes(checkpoints) - left)

    number, seconds, run = kill_attempt(folder, overrides, aim, dice, is_complete, is_writing)
    if run.returncode == 0:
        return None
    assert run.returncode == -9, f"kill {number}: the attempt ended by itself: {tail(run)}"
    assert run.survivors == []
    logged = max(run.metrics, default=0)
    return _describe(folder, reached, Kill(number, aim, seconds, 0, is_writing(), logged))


def kill_attempt(
    folder: Path,
    overrides: list[str],
    aim: str,
    dice: random.Random,
    is_complete: Callable[[], bool],
    is_writing: Callable[[], bool],
) -> tuple[int, float, runs.Run]:
    """Start or resume the run in ``folder`` and kill all its processes, unless it ends before.

    Args:
        is_complete: whether the checkpoint before the one that is aimed at is there.
        is_writing: whether a checkpoint is being written.

    Returns:
        The attempt's number, after how many seconds it ended, and what it left.
    """
    number = len(list(folder.glob("output-*.log"))) + 1
    delay = dice.random()
    process = runs.start_run(folder, overrides)
    began = listed = time.monotonic()
    below: dict[int, psutil.Process] = {}

    def list_below() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                below[child.pid] = child

    def is_running(deadline_s: float = DEADLINE_S) -> bool:
        nonlocal listed
        now = time.monotonic()
        assert now < began + DEADLINE_S, f"the attempt hangs: {folder}"
        if now > listed + LIST_EVERY_S:
            list_below()
            listed = now
        time.sleep(0.001)
        return process.poll() is None and time.monotonic() < began + deadline_s

    if aim == "start":
        while is_running(delay * START_S):
            pass
    else:
        while is_running() and not is_complete():
            pass
        while is_running() and not is_writing():
            pass
        until = time.monotonic() - began + delay * (WRITE_S if aim == "write" else 3.0)
        while is_running(until):
            pass
    if process.poll() is None:
        main = psutil.Process(process.pid)
        for _ in range(2):
            for one in [main, *below.values()]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            list_below()
    seconds = time.monotonic() - began
    run = runs.collect_run(folder, process, list(below.values()))
    (folder / runs.OUTPUT).rename(folder / f"output-{number:03d}.log")
    return number, seconds, run


def list_writes(checkpoints: Path) -> set[str]:
    """Checkpoints that are being written, and what kills have left of such."""
    return {path.name for path in checkpoints.glob(f"{SCRATCH_PREFIX}*")}


def _describe(folder: Path, reached: int, kill: Kill) -> Kill:
    """Check what the kill has left, and note it."""
    newest = find_newest(folder / "checkpoints")
    step = newest.step if newest else 0
    assert step >= reached, f"step {reached} was complete before, now {step} is the newest: {kill}"
    if newest is not None:
        assert newest.manifest is not None
        assert find_damage(newest.folder, newest.manifest.parts) is None
    kill = replace(kill, complete=step)
    with (folder / "kills.jsonl").open("a") as file:
        file.write(json.dumps(asdict(kill)) + "\n")
    print(kill, flush=True)
    return kill


def kill_repeatedly(folder: Path, overrides: list[str], kills: int, seed: int) -> int:
    """Kill the run so often, or until it ends; returns how often it was killed."""
    for count in range(kills):
        done = len((folder / "kills.jsonl").read_text().splitlines()) if count else _count(folder)
        dice = random.Random(f"{seed}-{done}")
        (aim,) = dice.choices(AIMS, WEIGHTS)
        if kill_run(folder, overrides, aim, dice) is None:
            return count
    return kills


def _count(folder: Path) -> int:
    path = folder / "kills.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def finish_and_compare(folder: Path, overrides: list[str], whole: runs.Run, steps: int) -> None:
    """Let the killed run end, and compare it with the undisturbed one beside it."""
    run = runs.run_training(folder, overrides)
    assert run.returncode == 0, tail(run)
    is_drained = f"weight_sync_mode={BARRIER}" in " ".join(overrides)
    fields = SAMPLED if is_drained else KEY
    wanted, found = (_list_rows(one, fields) for one in (whole, run))
    # What was sampled twice because its batch was lost is the same row again.
    assert set(found) == set(wanted)
    assert {step for step, *_ in found} == set(range(1, steps + 1))
    # One series: no step is there twice, and none after a restart is older than the one before.
    records = [json.loads(line) for line in (folder / runs.METRICS).read_text().splitlines()]
    logged = [record["step"] for record in records]
    assert logged == sorted(set(logged))
    if is_drained:
        expected, got = (_load_weights(place) for place in (folder.parent / "whole", folder))
        assert expected.keys() == got.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensor, got[name]), (
                f"{name} differs by {(tensor - got[name]).abs().max()}"
            )
    lost = sorted(set(range(1, steps + 1)) - set(logged))
    print(
        f"finished: {len(set(found))} trajectories as undisturbed, {len(found) - len(set(found))} "
        f"sampled again, weights {'equal' if is_drained else 'not compared'}; metrics of steps "
        f"{lost} went with a kill between checkpoint and log",
        flush=True,
    )


def _list_rows(run: runs.Run, fields: tuple[str, ...]) -> list[tuple]:
    return [
        tuple(json.dumps(row[f]) if isinstance(row[f], list) else row[f] for f in fields)
        for row in run.trajectories
    ]


def _load_weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = find_newest(folder / "checkpoints")
    assert newest is not None
    (shard,) = (newest.folder / "actor").glob("model_world_size_1_rank_0.pt")
    state = torch.load(shard, map_location="cpu", weights_only=False)
    return {name: getattr(value, "_local_tensor", value) for name, value in state.items()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--mode", default=BARRIER)
    parser.add_argument("--finish", action="store_true")
    given = parser.parse_args()
    folder = given.folder.resolve() / given.mode
    overrides = make_overrides(folder, given.steps, given.mode)
    runs.warm_up_runs()
    killed = kill_repeatedly(folder, overrides, given.kills, given.seed)
    print(f"{killed} kills", flush=True)
    if given.finish:
        whole = run_undisturbed(folder.parent / "whole", given.steps, given.mode)
        finish_and_compare(folder, overrides, whole, given.steps)
        shutil.rmtree(folder.parent / "whole")
    sys.exit(0)


if __name__ == "__main__":
    main()
