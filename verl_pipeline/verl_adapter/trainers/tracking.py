"""verl's trackers (TensorBoard, Weights & Biases, ...).

Invariants:
* Importing this module does not import verl.
* verl's ``file`` tracker begins its file anew: what an earlier start has logged is set aside.
"""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def list_trackers() -> list[str]:
    """The names that ``trainer.logger`` may hold."""
    from verl.utils.tracking import Tracking

    return list(Tracking.supported_backend)


def open_tracking(project: str, experiment: str, trackers: Sequence[str]) -> Any:
    """Open the trackers for metrics of work outside a training run.

    Returns:
        An object with ``log(data=metrics, step=step)`` and ``finish()``.
    """
    from verl.utils.tracking import Tracking

    set_aside_metrics(project, experiment, trackers)
    return Tracking(project, experiment, list(trackers), {"trainer": {}})


def set_aside_metrics(project: str, experiment: str, trackers: str | Sequence[str]) -> Path | None:
    """Rename the file that verl's ``file`` tracker would empty: ``m.jsonl`` becomes ``m.1.jsonl``.

    Call it in the process that opens the trackers, before it does.

    Args:
        project, experiment, trackers: settings of ``trainer``.

    Returns:
        The new name of the file; None if there is nothing to keep.
    """
    if "file" not in ([trackers] if isinstance(trackers, str) else trackers):
        return None
    named = os.environ.get("VERL_FILE_LOGGER_PATH")
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    path = Path(named) if named else root / project / f"{experiment}.jsonl"
    if not path.is_file() or not path.stat().st_size:
        return None
    names = (path.with_suffix(f".{number}{path.suffix}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    print(f"metrics of an earlier start are kept in {kept.absolute()}")
    return kept
