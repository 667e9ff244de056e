"""verl's trackers (TensorBoard, Weights & Biases, ...), for metrics of work outside a training run.

Invariant: importing this module does not import verl.
"""

from collections.abc import Sequence
from typing import Any


def list_trackers() -> list[str]:
    """The names that ``trainer.logger`` may hold."""
    from verl.utils.tracking import Tracking

    return list(Tracking.supported_backend)


def open_tracking(project: str, experiment: str, trackers: Sequence[str]) -> Any:
    """Opens the trackers; the result has ``log(data=metrics, step=step)`` and ``finish()``."""
    from verl.utils.tracking import Tracking

    return Tracking(project, experiment, list(trackers), {"trainer": {}})
