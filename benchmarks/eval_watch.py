"""Measures how much a training slows down while its checkpoints are evaluated beside it.

``python -m benchmarks.eval_watch [--steps 6] [--repeats 1] [--output FILE]``, from the repository's
folder; on two cores 5 minutes per run, two runs per repeat.

The quickstart's training runs alone and watched, and saves a checkpoint every second step. In the
watched run, ``verl-pipeline eval-watch`` runs beside it on the cores of ``--cores``; by default on
all, where it competes with the training at low priority.

Invariants:
* The runs train the same batches. A step's time is verl's ``timing_s/step``; the first step
  (warm-up) and the last (which samples nothing) are left out.
* A report is written only if the watcher has evaluated every checkpoint, each with its own weights.
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

from benchmarks.common import (
    ReportOption,
    estimate_ratio,
    format_ratio,
    print_table,
    summarize_spread,
    write_report,
)
from benchmarks.quiet_machine import wait_until_quiet
from verl_pipeline.quickstart.__main__ import DIFFICULTIES, make_overrides
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.quickstart.problems import TESTS_SOURCE, load_problems, write_parquet
from verl_pipeline.testing import runs

SAVE_EVERY = 2
RUN_TIMEOUT_S = 1800.0


def measure_training(
    directory: Path, model: Path, steps: int, watched: bool, cores: str | None
) -> dict:
    """Run one training.

    Returns:
        ``watched``; ``steps_s``: times of its steps, in seconds; ``checkpoints``: the watcher's
        results.

    Raises:
        RuntimeError: the training or the watcher failed; the message has the end of its log.
    """
    data = directory / "data"
    write_parquet(
        data, [problem for problem in load_problems() if problem.difficulty in DIFFICULTIES]
    )
    settings = [
        *(
            word
            for word in make_overrides(model, data, directory, steps)
            if not word.startswith("trainer.logger=")
        ),
        f"trainer.save_freq={SAVE_EVERY}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
    ]
    watcher = _start_watcher(directory, data, steps, cores) if watched else None
    try:
        run = runs.run_training(directory / "training", settings, timeout_s=RUN_TIMEOUT_S)
        if run.returncode:
            raise RuntimeError(f"the training exited with {run.returncode}: {run.output[-2000:]}")
        if watcher is not None and watcher.wait(RUN_TIMEOUT_S):
            raise RuntimeError(
                f"the watcher failed: {(directory / 'watch.log').read_text()[-2000:]}"
            )
    finally:
        if watcher is not None and watcher.poll() is None:
            watcher.send_signal(signal.SIGTERM)
            watcher.wait(60)
    rows = json.loads((directory / "watched" / "checkpoints.json").read_text()) if watched else []
    if watched and [row["step"] for row in rows] != list(range(SAVE_EVERY, steps + 1, SAVE_EVERY)):
        raise RuntimeError(
            f"the watcher evaluated steps {[row['step'] for row in rows]} instead of every "
            f"{SAVE_EVERY}nd of {steps}"
        )
    if len({row["weights"] for row in rows}) < len(rows):
        raise RuntimeError("two checkpoints have the same hash of weights")
    return {
        "watched": watched,
        "steps_s": [run.metrics[step]["timing_s/step"] for step in sorted(run.metrics)[1:-1]],
        "checkpoints": [
            {"step": row["step"], "weights": row["weights"], **row["tasks"]["parquet"]}
            for row in rows
        ],
    }


def _start_watcher(directory: Path, data: Path, steps: int, cores: str | None) -> subprocess.Popen:
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
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of both runs, in turn.")] = 1,
    cores: Annotated[str | None, typer.Option(help="Processors of the watcher, e.g. 0,1.")] = None,
    output: ReportOption = Path("benchmarks/results/eval_watch.json"),
) -> None:
    """Measure both runs in turn, print the ratio, and write the report."""
    model = prepare_model()
    measured = []
    for _ in range(repeats):
        for watched in (False, True):
            wait_until_quiet()
            with tempfile.TemporaryDirectory(prefix="eval-watch-") as directory:
                measured.append(measure_training(Path(directory), model, steps, watched, cores))
    alone_s, watched_s = (
        [s for run in measured if run["watched"] is watched for s in run["steps_s"]]
        for watched in (False, True)
    )
    ratio = estimate_ratio(watched_s, alone_s)
    rows = [
        {"training": name, **summarize_spread(times)}
        for name, times in (("alone", alone_s), ("beside the watcher", watched_s))
    ]
    print_table(rows, ["training", "median", "min", "max", "n"])
    print(f"step time beside the watcher over step time alone: {format_ratio(ratio)}")
    write_report(
        output,
        "eval_watch",
        {"steps": steps, "repeats": repeats, "cores": cores},
        {"runs": measured, "ratio": ratio},
    )


if __name__ == "__main__":
    typer.run(main)
