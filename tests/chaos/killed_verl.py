"""verl's own trainer, killed with -9 again and again: what it refuses, loses and trains twice.

``python -m tests.chaos.killed_verl FOLDER --seed 1 --kills 10`` kills a run of ``separate_async``
that saves every step and keeps one checkpoint, as :mod:`tests.chaos.killed_run` kills ours; then it
lets the run end, and counts. A resume that verl refuses is noted with its error; the marker is then
set by hand to the newest folder that has an actor and ``data.pt``, as a user would. Without such a
folder the run begins anew, and that is noted, too.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.verl_modes import SEPARATE_ASYNC
from tests.chaos.killed_run import kill_attempt
from tests.helpers.training_run import tail
from verl_pipeline.testing import runs, tiny_run

# More rows than any run takes: each prompt is to be trained once.
ROWS, BATCH, SAMPLES = 4096, 4, 4
TRACKER = "latest_checkpointed_iteration.txt"
AIMS, WEIGHTS = ("write", "training"), (5, 4)
DUMPS = "trained"


def make_overrides(folder: Path, steps: int) -> list[str]:
    """Overrides of a run that saves every step and keeps one checkpoint."""
    given = {
        "actor_rollout_ref.rollout.n_gpus_per_node": "1",
        "data.shuffle": "False",
        "trainer.n_gpus_per_node": "1",
        "trainer.total_epochs": "1",
        "trainer.total_training_steps": str(steps),
        "trainer.save_freq": "1",
        "trainer.max_actor_ckpt_to_keep": "1",
        "trainer.default_local_dir": f"{folder}/checkpoints",
        "trainer.rollout_data_dir": f"{folder}/{DUMPS}",
        "trainer.resume_mode": "auto",
    }
    shared = tiny_run.make_overrides(folder.parent / "model", rows=ROWS, batch=BATCH, n=SAMPLES)
    return [*shared, *SEPARATE_ASYNC, *(f"{key}={value}" for key, value in given.items())]


def read_marker(checkpoints: Path) -> int:
    """The step that verl's marker names; 0 if it names none."""
    path = checkpoints / TRACKER
    text = path.read_text() if path.exists() else ""
    return int(text) if text.isdigit() else 0


def kill_run(folder: Path, overrides: list[str], dice: random.Random) -> dict:
    """Kill one attempt, unless it ends before; what it was, and how it ended."""
    checkpoints = folder / "checkpoints"
    reached = read_marker(checkpoints)
    (aim,) = dice.choices(AIMS, WEIGHTS)
    steps = dice.randint(0, 2)

    began = time.time()

    def is_writing() -> bool:
        # A kill may have left that folder.
        written = (checkpoints / f"global_step_{reached + steps + 1}").rglob("*")
        return any(path.stat().st_mtime > began for path in written)

    number, seconds, run = kill_attempt(
        folder,
        overrides,
        aim,
        dice,
        lambda: read_marker(checkpoints) >= reached + steps,
        is_writing,
    )
    newest = max((step for step, _ in list_folders(checkpoints)), default=0)
    note = {"number": number, "aim": aim, "seconds": round(seconds, 1), "ended": "killed"}
    note |= {"marker": read_marker(checkpoints), "in_write": newest > read_marker(checkpoints)}
    if run.returncode == 0:
        note["ended"] = "finished"
    elif run.returncode != -9:
        errors = re.findall(r"^.*\b(?:\w+Error)\b.*$", tail(run), re.MULTILINE)
        note |= {"ended": "refused", "error": errors[-1].strip() if errors else tail(run)[-300:]}
    with (folder / "kills.jsonl").open("a") as file:
        file.write(json.dumps(note) + "\n")
    print(note, flush=True)
    return note


def list_folders(checkpoints: Path) -> Iterator[tuple[int, bool]]:
    """Steps of checkpoint folders, and whether actor and data loader are there."""
    for path in checkpoints.glob("global_step_*"):
        is_whole = bool(list(path.glob("actor/model_*.pt"))) and (path / "data.pt").is_file()
        yield int(path.name.rpartition("_")[2]), is_whole


def mend_by_hand(checkpoints: Path) -> str:
    """Point the marker at the newest folder that seems whole; without one, begin anew."""
    whole = [step for step, is_whole in list_folders(checkpoints) if is_whole]
    if whole:
        (checkpoints / TRACKER).write_text(str(max(whole)))
        return f"marker set to step {max(whole)}"
    checkpoints.rename(checkpoints.with_name(f"lost-{len(list(checkpoints.parent.iterdir()))}"))
    return "no checkpoint can be resumed: begun anew"


def count_prompts(folder: Path, steps: int) -> dict:
    """Which prompts were trained, of those that the data loader gave.

    A step whose dump a kill took (verl writes it after the checkpoint) is counted apart.
    """
    dumps = {int(path.stem): path for path in (folder / DUMPS).glob("*.jsonl")}
    trained: Counter[int] = Counter()
    for step in dumps.keys() & range(1, steps + 1):
        prompts = {json.loads(row)["input"] for row in dumps[step].read_text().splitlines()}
        trained.update(int(re.findall(r"row (\d+):", prompt)[0]) for prompt in prompts)
    missing_dumps = steps - len(dumps.keys() & range(1, steps + 1))
    last = max(trained, default=-1)
    return {
        "steps": steps,
        "dumps_missing": missing_dumps,
        "prompts_trained": len(trained),
        "trained_more_than_once": sum(count > 1 for count in trained.values()),
        "loader_went_to_row": last + 1,
        "never_trained": last + 1 - len(trained),
        "of_these_at_most_in_missing_dumps": missing_dumps * BATCH,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    folder = given.folder.resolve() / "separate_async"
    overrides = make_overrides(folder, given.steps)
    runs.warm_up_runs()
    kills = 0
    while kills < given.kills:
        done = len(list(folder.glob("output-*.log")))
        note = kill_run(folder, overrides, random.Random(f"{given.seed}-{done}"))
        if note["ended"] == "finished":
            break
        kills += note["ended"] == "killed"
        if note["ended"] == "refused":
            print(mend_by_hand(folder / "checkpoints"), flush=True)
    for _ in range(3):
        run = runs.run_training(folder, overrides)
        if run.returncode == 0:
            break
        print(f"refused: {tail(run)[-400:]}", mend_by_hand(folder / "checkpoints"), flush=True)
    print(json.dumps({"kills": kills, **count_prompts(folder, given.steps)}), flush=True)


if __name__ == "__main__":
    main()
