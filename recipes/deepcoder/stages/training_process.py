"""One training process, and everything below it.

Invariants:
* It ends when the runner ends, however that ends: by SIGTERM, on which ``verl_pipeline.main`` ends
  in order.
* After :meth:`Training.stop` nothing of it is left, within :data:`STOP_S` seconds.
"""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from verl_pipeline.processes import end_with_parent

# verl_pipeline.main needs up to 25 s (SHUTDOWN_S).
STOP_S = 60.0


def command(overrides: Sequence[str]) -> list[str]:
    """The command line of a training."""
    return [sys.executable, "-u", "-m", "verl_pipeline.main", *overrides]


class TrainingFailed(RuntimeError):
    """A training ended with an error; the message has the end of its log."""


class Training:
    """A training under way.

    Args:
        overrides: of ``verl_pipeline.main``.
        folder: log, metrics and hydra's files are written there; the working directory stays the
            caller's.
        tensorboard: folder of its events.
        lock: kept open by the process, so that the lock lasts as long as it does.
    """

    def __init__(self, overrides: Sequence[str], folder: Path, tensorboard: Path, lock: IO[str]):
        self.log, self._metrics = folder / "train.log", folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        # verl tracks in a process of Ray, which a Ray that runs already does not start with our
        # environment.
        variables = {"VERL_FILE_LOGGER_PATH": self._metrics, "TENSORBOARD_DIR": tensorboard}
        tracking = [
            f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}={path}"
            for name, path in variables.items()
        ]
        with open(self.log, "w") as file:
            self._process = subprocess.Popen(
                command([*overrides, *tracking, f"hydra.run.dir={folder}"]),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=(lock.fileno(),),
                # Ctrl-C reaches the runner alone, which then ends the training.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def logged(self) -> int:
        """Bytes of metrics it has written."""
        return self._metrics.stat().st_size if self._metrics.exists() else 0

    def stop(self) -> int:
        """End it and everything below it; its exit code."""
        if self._process.poll() is None:
            below = psutil.Process(self._process.pid).children(recursive=True)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
        return self._process.wait()

    def end_of_log(self, lines: int) -> str:
        """The last lines that it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def refusal(self) -> str | None:
        """The line with which it refused its settings."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next(
            (
                line.removeprefix("error: ")
                for line in reversed(lines)
                if line.startswith("error: ")
            ),
            None,
        )
