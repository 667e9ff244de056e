"""Evaluates one checkpoint of a training run in processes of their own.

Invariants:
* The training is never contacted: only files that verl has finished writing are read.
* Subprocesses end with this process, also after kill -9.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.caveats import mark_name, read_caveats
from verl_pipeline.evaluation.results import EXIT_INCOMPLETE, read_results
from verl_pipeline.evaluation.score_tables import print_caveats
from verl_pipeline.evaluation.store import EVALUATION
from verl_pipeline.outputs.folders import claim_output
from verl_pipeline.outputs.named_file import NamedFile
from verl_pipeline.processes import end_with_parent
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import get_step_folder


class WatchError(UserError):
    """A checkpoint did not come or could not be evaluated; the message names it and the fix."""


@dataclass(frozen=True)
class WatchSettings:
    """Settings of a watcher.

    Attributes:
        checkpoints: the run's ``trainer.default_local_dir``.
        output: folder for results.
        settings: arguments of ``verl-pipeline eval``, except model, output and purpose.
        last_step: the watcher ends after this step; None: it ends after ``idle_s``.
        idle_s: maximum wait for a checkpoint, in seconds.
        cores: processors to run on, by number; empty: all. The niceness is 10 in any case, so that
            the training has priority.
        gpus: ``CUDA_VISIBLE_DEVICES`` of the evaluations; None: unchanged.
        trackers: names of verl's trackers, e.g. ``tensorboard`` or ``wandb``.
        project, experiment: names for the trackers.
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


def evaluate_checkpoint(config: WatchSettings, step: int, console: Console) -> dict[str, Any]:
    """Evaluate the checkpoint of one step; return its row of ``checkpoints.json``.

    Raises:
        WatchError: the weights could not be merged, or the evaluation failed.
    """
    console.print(f"step {step}: evaluating")
    output = config.output / f"step_{step}"
    # Signed for the evaluation before logs and merged weights come into the folder.
    with claim_output(output, EVALUATION):
        pass
    actor = get_step_folder(config.checkpoints, step) / "actor"
    model, is_merged = _prepare_model(config, actor, output)
    try:
        # An interrupted call may have left results.
        (output / "results.json").unlink(missing_ok=True)
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
        command += ["purpose=choose", *config.settings]
        code = _run_command(command, output / "eval.log", config)
    finally:
        if is_merged:
            shutil.rmtree(model, ignore_errors=True)
    if code not in (0, EXIT_INCOMPLETE):
        raise WatchError(
            f"step {step}: the evaluation exited with {code}: {_read_log_tail(output / 'eval.log')}"
        )
    results = read_results(output)
    for task in results["tasks"]:
        print_caveats(console, f"step {step}: {task['task']}", read_caveats(task))
    return {
        "step": step,
        "weights": results["model"]["weights"],
        "finished": results["finished"],
        "tasks": {
            task["task"]: {
                "split": task["split"],
                "caveats": task["caveats"],
                "pass@1": task["pass@1"],
                "mean_reward": task["mean_reward"],
                "samples": task["counts"]["samples"],
                "failed": task["counts"]["failed"],
                "truncated": task["counts"]["truncated"],
                "mean_tokens": task["lengths"]["mean"] if task["lengths"] else 0.0,
            }
            for task in results["tasks"]
        },
    }


def make_metrics(row: dict[str, Any]) -> dict[str, float]:
    """Return a row of ``checkpoints.json`` as metrics ``eval/<task>/...``.

    Trackers take numbers only. So a score that is not the benchmark's has another name, as in
    ``eval/humaneval@first16/pass@1/value``, and each caveat is a metric
    ``eval/<task>/caveats/<kind>`` of 1.
    """
    metrics: dict[str, float] = {}
    for task_name, task in row["tasks"].items():
        caveats = read_caveats(task)
        name = mark_name(task_name, caveats)
        metrics |= {f"eval/{name}/caveats/{caveat.kind}": 1.0 for caveat in caveats}
        metrics[f"eval/{name}/samples"] = task["samples"]
        metrics[f"eval/{name}/failed"] = task["failed"]
        metrics[f"eval/{name}/mean_tokens"] = task["mean_tokens"]
        metrics[f"eval/{name}/truncated_share"] = task["truncated"] / max(1, task["samples"])
        for measure in ("pass@1", "mean_reward"):
            score = task.get(measure) or {}
            metrics |= {
                f"eval/{name}/{measure}/{key}": value
                for key, value in score.items()
                if value is not None
            }
    return metrics


def _prepare_model(config: WatchSettings, actor: Path, output: Path) -> tuple[Path, bool]:
    """Return a folder in Hugging Face's format, and whether it was merged here from shards.

    verl's merger writes bfloat16, whatever dtype the trainer uses.
    """
    saved = actor / "huggingface"
    if any(saved.glob("*.safetensors")):
        return saved, False
    merged = output / "model"
    # An interrupted merge may have left files.
    shutil.rmtree(merged, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor), "--target_dir", str(merged)]
    code = _run_command(command, output / "merge.log", config)
    if code:
        raise WatchError(
            f"{actor}: verl's model merger exited with {code}: "
            f"{_read_log_tail(output / 'merge.log')}. Let verl save whole models "
            "(actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]); "
            "if the checkpoint was removed meanwhile, keep more of them "
            "(trainer.max_actor_ckpt_to_keep)"
        )
    return merged, True


def _run_command(command: list[str], log: Path, config: WatchSettings) -> int:
    """Run a command on the watcher's cores and devices; return its exit code."""
    environment = dict(os.environ)
    if config.gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = config.gpus
    with NamedFile(log, "a") as file:
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
            # The leader, or processes that it left behind.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_log_tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])
