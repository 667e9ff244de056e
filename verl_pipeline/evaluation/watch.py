"""Evaluates the checkpoints of a training run beside it, on resources of its own.

    OUTPUT/step_<N>/            the evaluation of checkpoint N, as ``verl-pipeline eval`` leaves it
    OUTPUT/checkpoints.json     a row a checkpoint: step, hash of its weights, scores
    OUTPUT/metrics.jsonl        the same as metrics ``eval/<task>/...``, beside verl's other
    trackers

Invariants:
* A checkpoint is evaluated when verl has called it complete, once, in order of steps; its weights'
  hash is recorded.
* The training is never asked anything: no rollout slot, no lock, only files that it has finished
  writing.
* Waiting ends: after the last step, or when no checkpoint has come for ``idle_s``; the error says
  what is awaited.
* Checkpoints are there to be chosen between: test splits are marked in every result
  (``purpose=choose``).
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.config import load_config
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.results import INCOMPLETE, read_results
from verl_pipeline.evaluation.run import prepare
from verl_pipeline.evaluation.store import sole_owner, write_json, write_lines
from verl_pipeline.processes import end_with_parent

LOOK_S = 5.0
# verl writes it last, with the step that is complete.
COMPLETE = "latest_checkpointed_iteration.txt"


class WatchError(Refused):
    """Nothing to watch, nothing came, or an evaluation was refused; the message says which and what
    to do.
    """


@dataclass(frozen=True)
class Watch:
    """What is watched, and with what.

    Attributes:
        checkpoints: the run's ``trainer.default_local_dir``.
        settings: of ``verl-pipeline eval``, as on its command line; not model, output and purpose.
        last_step: ends after this one; None: with ``idle_s``.
        idle_s: longest wait for a checkpoint.
        cores: processors to run on, by number; empty: all. With ``nice`` 10 in any case: the
            training goes first.
        gpus: value of ``CUDA_VISIBLE_DEVICES`` for the evaluations; None: as it is.
        trackers: verl's names, like ``tensorboard`` and ``wandb``.
        project, experiment: for them.
    """

    checkpoints: Path
    output: Path
    settings: Sequence[str]
    last_step: int | None = None
    idle_s: float = 7200.0
    cores: Sequence[str] = ()
    gpus: str | None = None
    trackers: Sequence[str] = ("console",)
    project: str = "eval"
    experiment: str = "eval"


def watch(config: Watch, console: Console) -> list[dict[str, Any]]:
    """Evaluate every checkpoint as it comes; the rows of ``checkpoints.json``.

    Raises:
        Refused: settings that cannot be, an evaluation that was refused, or nothing came for
            ``idle_s``.
    """
    _check(config)
    summary = config.output / "checkpoints.json"
    with sole_owner(config.output):
        rows = json.loads(summary.read_text()) if summary.is_file() else []
        done = {row["step"] for row in rows}
        if not config.checkpoints.is_dir():
            console.print(
                f"{config.checkpoints} does not exist yet; waiting for it",
                markup=False,
                soft_wrap=True,
            )
        tracking = _tracking(config)
        since = time.monotonic()
        try:
            while config.last_step is None or max(done, default=0) < config.last_step:
                new = [step for step in complete_steps(config.checkpoints) if step not in done]
                if not new:
                    if _waited_enough(config, time.monotonic() - since, done):
                        break
                    time.sleep(LOOK_S)
                    continue
                row = evaluate_step(config, new[0], console)
                rows.append(row)
                done.add(row["step"])
                tracking.log(data=metrics_of(row), step=row["step"])
                write_json(summary, rows)
                write_lines(
                    config.output / "metrics.jsonl",
                    ({"step": r["step"], "data": metrics_of(r)} for r in rows),
                )
                since = time.monotonic()
        finally:
            tracking.finish()
    return rows


def _check(config: Watch) -> None:
    """What the first checkpoint would bring to light hours later.

    Raises:
        Refused: settings that cannot be.
    """
    from verl.utils.tracking import Tracking

    names = [word.split("=")[0] for word in config.settings]
    if own := {"model", "output", "purpose"} & set(names):
        raise WatchError(f"{sorted(own)[0]}: the watcher sets it itself")
    prepare(load_config(None, [*config.settings], {"model": "checkpoint"}))
    if unknown := set(config.trackers) - set(Tracking.supported_backend):
        raise WatchError(
            f"--trackers {sorted(unknown)[0]!r}: verl has {', '.join(Tracking.supported_backend)}"
        )
    usable = os.sched_getaffinity(0)
    if not all(core.isdigit() and int(core) in usable for core in config.cores):
        raise WatchError(
            f"--cores {','.join(config.cores)}: numbers among {', '.join(map(str, sorted(usable)))}"
            " are needed"
        )


def complete_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints that verl has finished writing and not yet removed, in order."""
    marker = checkpoints / COMPLETE
    if not marker.is_file():
        return []
    text = marker.read_text().strip()
    latest = int(text) if text.isdigit() else 0  # it is being written
    matches = (
        re.fullmatch(r"global_step_(\d+)", folder.name)
        for folder in checkpoints.glob("global_step_*")
    )
    return sorted(step for match in matches if match and (step := int(match[1])) <= latest)


def evaluate_step(config: Watch, step: int, console: Console) -> dict[str, Any]:
    """Evaluate one checkpoint; its row.

    Raises:
        WatchError: the weights could not be put together, or the evaluation was refused.
    """
    console.print(f"step {step}: evaluating")
    output = config.output / f"step_{step}"
    output.mkdir(parents=True, exist_ok=True)
    actor = config.checkpoints / f"global_step_{step}" / "actor"
    model, made = _model(config, actor, output)
    try:
        (output / "results.json").unlink(missing_ok=True)  # of a call that was stopped
        command = [
            sys.executable,
            "-m",
            "verl_pipeline.cli",
            "eval",
            "--model",
            str(model),
            "--output",
            str(output),
        ]
        code = _run([*command, "purpose=choose", *config.settings], output / "eval.log", config)
    finally:
        if made:
            shutil.rmtree(model, ignore_errors=True)
    if code not in (0, INCOMPLETE):
        raise WatchError(f"step {step}: evaluation ended with {code}: {_tail(output / 'eval.log')}")
    results = read_results(output)
    for warning in results["warnings"]:
        console.print(
            f"step {step}: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    return {
        "step": step,
        "weights": results["model"]["weights"],
        "finished": results["finished"],
        "warnings": results["warnings"],
        "tasks": {
            task["task"]: {
                "split": task["split"],
                "pass@1": task["pass@1"],
                "samples": task["counts"]["samples"],
                "failed": task["counts"]["failed"],
                "truncated": task["counts"]["truncated"],
                "mean_tokens": task["lengths"]["mean"] if task["lengths"] else 0.0,
            }
            for task in results["tasks"]
        },
    }


def metrics_of(row: dict[str, Any]) -> dict[str, float]:
    """``eval/<task>/...`` for the trackers."""
    found: dict[str, float] = {}
    for name, task in row["tasks"].items():
        found[f"eval/{name}/samples"] = task["samples"]
        found[f"eval/{name}/failed"] = task["failed"]
        found[f"eval/{name}/mean_tokens"] = task["mean_tokens"]
        found[f"eval/{name}/truncated_share"] = task["truncated"] / max(1, task["samples"])
        score = task["pass@1"] or {}
        found |= {
            f"eval/{name}/pass@1/{key}": value for key, value in score.items() if value is not None
        }
    return found


def _model(config: Watch, actor: Path, output: Path) -> tuple[Path, bool]:
    """A folder in Hugging Face's format, and whether it was made here: what verl saved so, or its
    shards merged.

    verl's merger writes bfloat16, whatever the trainer computes in.
    """
    saved = actor / "huggingface"
    if any(saved.glob("*.safetensors")):
        return saved, False
    merged = output / "model"
    shutil.rmtree(merged, ignore_errors=True)  # of a merge that was stopped
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    code = _run(
        [*command, "--local_dir", str(actor), "--target_dir", str(merged)],
        output / "merge.log",
        config,
    )
    if code:
        raise WatchError(
            f"{actor}: verl's model merger ended with {code}: {_tail(output / 'merge.log')}. Let "
            "verl save whole models "
            "(actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]), "
            "and keep more checkpoints if this one was removed meanwhile "
            "(trainer.max_actor_ckpt_to_keep)"
        )
    return merged, True


def _run(command: list[str], log: Path, config: Watch) -> int:
    """Run on the watcher's own resources; whatever ends us ends it too, kill -9 included."""
    environment = {
        **os.environ,
        **({"CUDA_VISIBLE_DEVICES": config.gpus} if config.gpus is not None else {}),
    }
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        if config.cores:
            os.sched_setaffinity(process.pid, map(int, config.cores))
        os.setpriority(os.PRIO_PROCESS, process.pid, 10)
        return process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the leader, or what it has left behind
        process.wait()


def _waited_enough(config: Watch, waited: float, done: set[int]) -> bool:
    """Whether the wait ends in peace: nothing came for ``idle_s``, and nothing certain was awaited.

    Raises:
        WatchError: ``last_step`` was awaited, or a first checkpoint.
    """
    if waited <= config.idle_s:
        return False
    if config.last_step is None and done:
        return True
    what = f"step {config.last_step}" if config.last_step is not None else "a checkpoint"
    raise WatchError(
        f"{what} has not come to {config.checkpoints} for {waited:.0f} s (evaluated: "
        f"{sorted(done) or 'none'}); does the training live, and does it save (trainer.save_freq)?"
    )


def _tracking(config: Watch) -> Any:
    from verl.utils.tracking import Tracking

    return Tracking(config.project, config.experiment, list(config.trackers), {"trainer": {}})


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])
