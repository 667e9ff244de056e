"""Watches a training run's checkpoints and evaluates each as it appears.

    OUTPUT/step_<N>/            evaluation of the checkpoint of step N, as of ``verl-pipeline eval``
    OUTPUT/checkpoints.json     one row per checkpoint: step, hash of the weights, scores
    OUTPUT/metrics.jsonl        the same as metrics ``eval/<task>/...``, beside verl's trackers

Invariants:
* Each checkpoint is evaluated once, in the order of steps, after verl has marked it complete; the
  hash of its weights is recorded.
* The training is never contacted: no rollout slot, no lock; only finished files are read.
* Waiting ends after the last step, or when no checkpoint has come for ``idle_s``; the error names
  the missing checkpoint.
* A watcher's results serve to choose checkpoints, so results on test splits are marked
  (``purpose=choose``).
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.checkpoint_evaluation import (
    WatchError,
    WatchSettings,
    evaluate_checkpoint,
    make_metrics,
)
from verl_pipeline.evaluation.old_results import add_row_caveats
from verl_pipeline.evaluation.override_texts import format_override
from verl_pipeline.evaluation.recorded_files import check_shape, read_record
from verl_pipeline.evaluation.recorded_results import CHECKPOINTS
from verl_pipeline.evaluation.score_tables import print_line
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.evaluation.suggestions import suggest_name
from verl_pipeline.evaluation.task_plan import plan_tasks
from verl_pipeline.outputs.files import write_json, write_lines
from verl_pipeline.outputs.folders import FolderKind, check_output, claim_output
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import list_steps, read_latest_step
from verl_pipeline.verl_adapter.settings.run_configuration import find_run_config
from verl_pipeline.verl_adapter.trainers.tracking import list_trackers, open_tracking

POLL_INTERVAL_S = 5.0
WATCHING = FolderKind(
    "verl-pipeline eval-watch",
    landmarks=(".lock", "checkpoints.json"),
    written=("checkpoints.json", "metrics.jsonl"),
)


def watch_checkpoints(config: WatchSettings, console: Console) -> list[dict[str, Any]]:
    """Evaluate every checkpoint as it appears; return the rows of ``checkpoints.json``.

    Raises:
        UserError: a setting cannot work, an evaluation failed, or no checkpoint came for
            ``idle_s``.
    """
    config = _use_run_config(config, console)
    _check_settings(config)
    summary = config.output / "checkpoints.json"
    with claim_output(config.output, WATCHING):
        rows = _read_rows(summary)
        evaluated = {row["step"] for row in rows}
        if not os.path.isdir(config.checkpoints):
            print_line(console, f"{config.checkpoints} does not exist yet; waiting for it")
        tracking = open_tracking(config.project, config.experiment, config.trackers)
        last_progress = time.monotonic()
        try:
            while config.last_step is None or max(evaluated, default=0) < config.last_step:
                steps = list_complete_steps(config.checkpoints)
                new_steps = [step for step in steps if step not in evaluated]
                if not new_steps:
                    if _is_wait_over(config, time.monotonic() - last_progress, evaluated):
                        break
                    time.sleep(POLL_INTERVAL_S)
                    continue
                row = evaluate_checkpoint(config, new_steps[0], console)
                rows.append(row)
                evaluated.add(row["step"])
                tracking.log(data=make_metrics(row), step=row["step"])
                write_json(summary, rows)
                write_lines(
                    config.output / "metrics.jsonl",
                    ({"step": r["step"], "data": make_metrics(r)} for r in rows),
                )
                last_progress = time.monotonic()
        finally:
            tracking.finish()
    return rows


def _read_rows(summary: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier call."""
    if not summary.exists():
        return []
    advice = "restore it, or choose another --output"
    rows = read_record(summary, advice)
    check_shape(rows, CHECKPOINTS, str(summary), advice)
    return [add_row_caveats(row) for row in rows]


def list_complete_steps(checkpoints: Path) -> list[int]:
    """Return the steps whose checkpoints verl has completed and not yet removed, in order."""
    latest = read_latest_step(checkpoints) or 0
    return [step for step in list_steps(checkpoints) if step <= latest]


def _use_run_config(config: WatchSettings, console: Console) -> WatchSettings:
    """Let the run's own configuration name the reward, unless the user names a grader.

    Raises:
        BadSetting: a setting cannot work.
    """
    settings = load_eval_config(None, [*config.settings], {"model": "checkpoint"})
    options = settings.options.get("parquet", {})
    named = {"grader", "source", "run_config", "reward_kwargs"}
    if "parquet" not in settings.tasks or options.keys() & named:
        return config
    file = find_run_config(config.checkpoints)
    if file is None:
        text = (
            "the run's configuration was not found beside its checkpoints, nor in outputs/: if the "
            "run has a reward function of its own, name it (options.parquet.grader="
            "FILE.py:FUNCTION), or the file (options.parquet.run_config=.hydra/config.yaml)"
        )
    else:
        text = f"graded by the reward of the run's configuration {file}"
        setting = format_override("options.parquet.run_config", str(file.resolve()))
        config = dataclasses.replace(config, settings=[*config.settings, setting])
    print_line(console, text, "dim")
    return config


def _check_settings(config: WatchSettings) -> None:
    """Find now the errors that would otherwise appear at the first checkpoint, hours later.

    Raises:
        UserError: a setting cannot work.
    """
    # verl removes old checkpoints, with whatever else is in their folders.
    if config.output.is_relative_to(config.checkpoints):
        raise WatchError(
            f"--output {config.output} is in the folder of the checkpoints that are read; choose "
            "another --output"
        )
    check_output(config.output, WATCHING)
    names = [setting.split("=")[0] for setting in config.settings]
    if reserved := {"model", "output", "purpose"} & set(names):
        raise WatchError(f"{sorted(reserved)[0]}: the watcher sets it itself; remove it")
    eval_config = load_eval_config(None, [*config.settings], {"model": "checkpoint"})
    known = list_trackers()
    if unknown := set(config.trackers) - set(known):
        name = sorted(unknown)[0]
        raise WatchError(
            f"--trackers {name!r}: {suggest_name(name, known)}verl has {', '.join(known)}"
        )
    usable = os.sched_getaffinity(0)
    if not all(core.isdigit() and int(core) in usable for core in config.cores):
        raise WatchError(
            f"--cores {','.join(config.cores)}: give numbers among "
            f"{', '.join(map(str, sorted(usable)))}"
        )
    plan_tasks(eval_config)


def _is_wait_over(config: WatchSettings, waited_s: float, evaluated: set[int]) -> bool:
    """Whether the watcher may end: nothing came for ``idle_s``, and no certain checkpoint is due.

    Raises:
        WatchError: the wait for ``last_step``, or for a first checkpoint, was too long.
    """
    if waited_s <= config.idle_s:
        return False
    if config.last_step is None and evaluated:
        return True
    missing = f"step {config.last_step}" if config.last_step is not None else "a checkpoint"
    raise WatchError(
        f"{missing} has not come to {config.checkpoints} for {waited_s:.0f} s (evaluated: "
        f"{sorted(evaluated) or 'none'}); check that the training runs and saves "
        "(trainer.save_freq)"
    )
