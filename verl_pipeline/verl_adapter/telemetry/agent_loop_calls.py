"""Stands before any agent loop manager: prompts that the trainer submits are recorded."""

from typing import Any

from verl.utils import tensordict_utils as tu

from verl_pipeline.telemetry.recorder import Recorder
from verl_pipeline.telemetry.records import Moment, TrajectoryEvent

# What the driver tells the workers' client, and it them: lanes of the replicas by server.
REPLICA_LANES = "replica_lanes"


class RecordedManager:
    """An agent loop manager, whatever its class, for verl's trainers.

    Args:
        manager: who does the work.
        recorder: of the driver.
        has_batches: whether ``global_steps`` of a training prompt is the batch that it is for.
    """

    def __init__(self, manager: Any, recorder: Recorder, has_batches: bool):
        self._manager, self._recorder, self._has_batches = manager, recorder, has_batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def generate_sequences(self, prompts: Any) -> Any:
        """verl's method."""
        with self._recorder.survive("submitted prompts"):
            self._record(prompts)
        return self._manager.generate_sequences(prompts)

    def _record(self, prompts: Any) -> None:
        is_validation = bool(tu.get(prompts, "validate", False))
        batch = None
        if self._has_batches and not is_validation:
            batch = int(tu.get(prompts, "global_steps"))
        rows = tu.get(prompts, "index", [None] * len(prompts))
        now = self._recorder.now()
        for prompt, row in zip(tu.get(prompts, "uid"), rows, strict=True):
            self._recorder.add(
                TrajectoryEvent(
                    Moment.SUBMITTED,
                    now,
                    str(prompt),
                    batch=batch,
                    is_validation=is_validation,
                    row=int(row) if _is_number(row) else None,
                )
            )


def _is_number(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError):
        return False
    return True
