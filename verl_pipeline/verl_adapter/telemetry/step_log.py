"""Stands before verl's trackers: what they get is recorded, and the console gets a line a step.

Invariants:
* Every tracker but the console gets what verl logs, and our shares of the step.
* What verl would print goes to :data:`LOG` in the run's folder, with the same text.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from verl_pipeline.telemetry.recorder import Recorder
from verl_pipeline.telemetry.records import StepRecord

LOG = "steps.log"
CONSOLE = "console"


class StepLog:
    """verl's ``Tracking``, as far as verl's trainer and task runner use it.

    Args:
        tracking: verl's.
        recorder: of the driver.
        complete: adds our metrics to those of a step, in place, and returns the step's line; None
            if what is logged is no step's.
    """

    def __init__(
        self,
        tracking: Any,
        recorder: Recorder,
        complete: Callable[[dict[str, Any], int], str | None],
    ):
        self._tracking, self._recorder, self._complete = tracking, recorder, complete
        self._trackers = list(tracking.logger)
        assert recorder.target is not None and recorder.target.folder is not None
        self._path = Path(recorder.target.folder) / LOG
        self._has_failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracking, name)

    def log(self, data: dict[str, Any], step: int, backend: Any = None) -> None:
        """verl's method."""
        line = self._complete(data, step)
        metrics = _select_numbers(data)
        self._recorder.add(StepRecord(self._recorder.now(), step, metrics))
        if line is None or CONSOLE not in self._trackers or backend is not None:
            self._tracking.log(data=data, step=step, backend=backend)
            return
        others = [name for name in self._trackers if name != CONSOLE]
        if others:
            self._tracking.log(data=data, step=step, backend=others)
        self._append(f"step:{step} - " + " - ".join(f"{k}:{v}" for k, v in metrics.items()))
        print(line, flush=True)

    def _append(self, text: str) -> None:
        try:
            with open(self._path, "a") as file:
                file.write(text + "\n")
        except OSError as error:
            if not self._has_failed:
                print(f"[telemetry] WARNING: {self._path}: {error}", file=sys.stderr, flush=True)
            self._has_failed = True


def _select_numbers(data: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in data.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue
    return found
