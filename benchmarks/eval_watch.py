"""What evaluating every checkpoint beside a training run costs it: the quickstart's training alone
and watched.

``python -m benchmarks.eval_watch [--steps 6] [--repeats 1] [--output FILE]``, from the repository's
folder; 5 minutes a run and two runs a repeat on two cores.

Both runs save a checkpoint every second step; the second has ``verl-pipeline eval-watch`` beside
it, on the cores named by ``--cores`` (by default all: it then competes with the training for them,
at low priority).

Invariants:
* The runs train the same batches; a step's time is verl's own ``timing_s/step``, without the first
  (warm-up) and the last (which samples nothing).
* The watcher has evaluated every checkpoint, each with weights of its own, or nothing is written.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import geometric_ratio, median_spread, ratio_text, table, write_report
from verl_pipeline.quickstart.__main__ import DIFFICULTIES, overrides
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.quickstart.problems import TESTS_SOURCE, load_problems, write_parquet
from verl_pipeline.testing import runs

EVERY = 2
RUN_S = 1800.0


def measure(directory: Path, model: Path, steps: int, watched: bool, cores: str | None) -> dict:
    """One training; ``steps_s``: times of its steps; ``checkpoints``: what the watcher found, if
    there was one.

    Raises:
        RuntimeError: the training or the watcher failed; the end of its log is in the message.
    """
    data = directory / "data"
    write_parquet(
        data, [problem for problem in load_problems() if problem.difficulty in DIFFICULTIES]
    )
    settings = [
        *(
            word
            for word in overrides(model, data, directory, steps)
            if not word.startswith("trainer.logger=")
        ),
        f"trainer.save_freq={EVERY}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
    ]
    watcher = _watch(directory, data, steps, cores) if watched else None
    try:
        run = runs.train(directory / "training", settings, timeout_s=RUN_S)
        if run.returncode:
            raise RuntimeError(f"the training ended with {run.returncode}: {run.output[-2000:]}")
        if watcher is not None and watcher.wait(RUN_S):
            raise RuntimeError(
                f"the watcher failed: {(directory / 'watch.log').read_text()[-2000:]}"
            )
    finally:
        if watcher is not None and watcher.poll() is None:
            watcher.send_signal(signal.SIGTERM)
            watcher.wait(60)
    rows = json.loads((directory / "watched" / "checkpoints.json").read_text()) if watched else []
    if watched and [row["step"] for row in rows] != list(range(EVERY, steps + 1, EVERY)):
        raise RuntimeError(f"checkpoints evaluated: {[row['step'] for row in rows]}")
    if len({row["weights"] for row in rows}) < len(rows):
        raise RuntimeError("two checkpoints have one weights' hash")
    return {
        "watched": watched,
        "steps_s": [run.metrics[step]["timing_s/step"] for step in sorted(run.metrics)[1:-1]],
        "checkpoints": [
            {"step": row["step"], "weights": row["weights"], **row["tasks"]["parquet"]}
            for row in rows
        ],
    }


def _watch(directory: Path, data: Path, steps: int, cores: str | None) -> subprocess.Popen:
    words = [
        "--output",
        str(directory / "watched"),
        "--last-step",
        str(steps),
        *(["--cores", cores] if cores else []),
    ]
    settings = [
        f"options.parquet.file={data / 'heldout.parquet'}",
        f"options.parquet.source={TESTS_SOURCE}",
        "sampling.n=2",
        "sampling.max_tokens=40",
        "engine.threads=1",
    ]
    command = [
        sys.executable,
        "-m",
        "verl_pipeline.cli",
        "eval-watch",
        str(directory / "checkpoints"),
        *words,
        *settings,
    ]
    with open(directory / "watch.log", "w") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        )


def main(
    steps: Annotated[int, typer.Option(min=4, help="Updates of each run.")] = 6,
    repeats: Annotated[int, typer.Option(min=1, help="Of both runs, in turn.")] = 1,
    cores: Annotated[str | None, typer.Option(help="Processors of the watcher.")] = None,
    output: Annotated[Path, typer.Option(help="Report.")] = Path(
        "benchmarks/results/eval_watch.json"
    ),
) -> None:
    """Measure, print and write."""
    model = prepare_model()
    found = []
    for _ in range(repeats):
        for watched in (False, True):
            with tempfile.TemporaryDirectory(prefix="eval-watch-") as directory:
                found.append(measure(Path(directory), model, steps, watched, cores))
    alone, beside = (
        [s for run in found if run["watched"] is watched for s in run["steps_s"]]
        for watched in (False, True)
    )
    ratio = geometric_ratio(beside, alone)
    rows = [
        {"training": name, **median_spread(times)}
        for name, times in (("alone", alone), ("beside the watcher", beside))
    ]
    table(rows, ["training", "median", "min", "max", "n"])
    print(f"step time beside the watcher, as a multiple: {ratio_text(ratio)}")
    write_report(
        output,
        "eval_watch",
        {"steps": steps, "repeats": repeats, "cores": cores},
        {"runs": found, "ratio": ratio},
    )


if __name__ == "__main__":
    typer.run(main)
