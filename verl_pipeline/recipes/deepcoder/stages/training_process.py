"""One training process, with everything that it starts.

Invariants:
* The training ends when the runner ends, however the runner ends: it gets SIGTERM, on which
  ``verl_pipeline.main`` shuts down in order.
* :data:`STOP_TIMEOUT_S` seconds after :meth:`TrainingProcess.stop_tree` was called, no process of
  the training is left.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from verl_pipeline.fork_server.client import start_process
from verl_pipeline.outputs.errors import name_system_errors
from verl_pipeline.outputs.named_file import NamedFile

# verl_pipeline.main needs up to 25 s to shut down (SHUTDOWN_S).
STOP_TIMEOUT_S = 60.0
PROGRAM = ("-u", "-m", "verl_pipeline.main")


def build_command(overrides: Sequence[str]) -> list[str]:
    """Return the command line of a training."""
    return [sys.executable, *PROGRAM, *overrides]


class TrainingError(RuntimeError):
    """A training ended with an error; the message has the end of its log."""


class TrainingProcess:
    """A running training.

    Args:
        overrides: overrides of ``verl_pipeline.main``.
        folder: folder of log and metrics. The working directory stays the caller's.
        tensorboard: folder of TensorBoard's events.
        lock: an open lock file. The training inherits it, so the lock lasts as long as the
            training.
    """

    def __init__(self, overrides: Sequence[str], folder: Path, tensorboard: Path, lock: IO[bytes]):
        self.log, self._metrics = folder / "train.log", folder / "metrics.jsonl"
        with name_system_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # verl's loggers run in a process of Ray. If Ray is running already, that process does not
        # inherit our environment, so the variables are passed to Ray.
        variables = {"VERL_FILE_LOGGER_PATH": self._metrics, "TENSORBOARD_DIR": tensorboard}
        logger_overrides = [
            f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}={path}"
            for name, path in variables.items()
        ]
        with NamedFile(self.log, "w") as file:
            # In a session of its own: Ctrl-C must reach the runner only, which then stops it.
            self._process = start_process(
                [*PROGRAM, *overrides, *logger_overrides],
                environment=dict(os.environ),
                folder=Path.cwd(),
                output=file.fileno(),
                kept_descriptors=(lock.fileno(),),
            )

    def read_exit_code(self) -> int | None:
        """Return the exit code, or None while the training runs."""
        return self._process.poll()

    def measure_metrics(self) -> int:
        """Return the size of the metrics file in bytes; it grows with every logged step."""
        return self._metrics.stat().st_size if self._metrics.exists() else 0

    def stop_tree(self) -> int:
        """Stop the training and everything that it started, and return its exit code."""
        if self._process.poll() is None:
            descendants = psutil.Process(self._process.pid).children(recursive=True)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            for process in descendants:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
        return self._process.wait()

    def read_log_end(self, count: int) -> str:
        """Return the last ``count`` lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def find_refusal(self) -> str | None:
        """Return the last error line of the log, with which the training refused its settings."""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return errors[-1].removeprefix("error: ") if errors else None
