"""Runs a training command to its end, with a log of its own.

Invariants:
* The training ends when this process ends, however it ends: SIGTERM first, on which it shuts down
  in order, then SIGKILL for what is left.
* A log is continued, never overwritten: a resumed run appends, and so do its metrics, though verl's
  SFT trainer begins its file anew.
"""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from verl_pipeline.errors import UserError
from verl_pipeline.outputs.named_file import NamedFile
from verl_pipeline.processes import end_with_parent

# verl_pipeline.main needs up to 25 s to shut down.
STOP_S = 60.0
METRICS = "metrics.jsonl"
# Of the attempt that runs, where the trainer does not continue the file itself.
_ATTEMPT_METRICS = "metrics.attempt.jsonl"
_SHOWN_LINES = 20


class TrainingFailed(RuntimeError):
    """A training ended with an error; the message has the end of its log."""


class TrainingRefused(UserError):
    """A training refused its settings; the message is its own."""


def run_training(
    command: Sequence[str], folder: Path, variables: dict[str, str], *, continues_metrics: bool
) -> None:
    """Run ``command`` and wait for its end.

    Args:
        folder: of ``train.log`` and ``metrics.jsonl``.
        variables: added to the environment.
        continues_metrics: whether the trainer appends to its file of metrics.

    Raises:
        TrainingRefused: it refused its settings with an error line.
        TrainingFailed: it ended with another error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    begin = log.stat().st_size if log.exists() else 0
    _keep_metrics(folder)  # of an attempt that was killed
    metrics = folder / (METRICS if continues_metrics else _ATTEMPT_METRICS)
    environment = {
        **os.environ,
        **variables,
        "VERL_FILE_LOGGER_PATH": str(metrics.resolve()),
    }
    with NamedFile(log, "a") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process, which then ends the training
            preexec_fn=end_with_parent,
        )
        try:
            code = process.wait()
        finally:
            _end(process)
            _keep_metrics(folder)
    if code:
        with open(log, errors="replace") as file:
            file.seek(begin)
            lines = file.read().splitlines()
        refusals = [line for line in lines if line.startswith("error: ")]
        if refusals:
            raise TrainingRefused("\n".join(one.removeprefix("error: ") for one in refusals))
        end = "\n".join(lines[-_SHOWN_LINES:])
        raise TrainingFailed(f"{end}\nthe training exited with code {code}; its log: {log}")


def _keep_metrics(folder: Path) -> None:
    """Append the attempt's complete records to those of all attempts."""
    attempt = folder / _ATTEMPT_METRICS
    if attempt.exists():
        records = attempt.read_bytes()
        with NamedFile(folder / METRICS, "a") as file:
            file.write(records[: records.rfind(b"\n") + 1])
        attempt.unlink()


def _end(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for child in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.wait()
