"""verl's trackers (TensorBoard, Weights & Biases, ...).

MONKEY-PATCH, while the trackers are opened: verl looks up the classes of two of them in its module
and takes no others. ``contract.toml`` has what they have to be: a test fails when that changes.

Invariants:
* Importing this module does not import verl.
* Nothing that an earlier start has logged is lost, although verl's ``file`` tracker begins its
  file anew. A run that goes on from step k continues the file after step k; what was logged of
  steps that are trained again goes to ``<name>.lost.jsonl``, and TensorBoard no longer shows it.
  A run that begins anew gets a file of its own.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.outputs.errors import name_system_errors
from verl_pipeline.outputs.files import parse_record, replace_file


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
    path = find_metrics_file(project, experiment, trackers)
    if path is None or not path.is_file() or not path.stat().st_size:
        return None
    names = (path.with_suffix(f".{number}{path.suffix}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    print(f"metrics of an earlier start are kept in {kept.absolute()}")
    return kept


def find_metrics_file(project: str, experiment: str, trackers: str | Sequence[str]) -> Path | None:
    """The file of verl's ``file`` tracker; None if it is not among ``trackers``."""
    if "file" not in ([trackers] if isinstance(trackers, str) else trackers):
        return None
    named = os.environ.get("VERL_FILE_LOGGER_PATH")
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    return Path(named) if named else root / project / f"{experiment}.jsonl"


@contextlib.contextmanager
def continue_trackers(settings: Any, trained: int) -> Iterator[None]:
    """Inside, verl's trackers, when they are opened, go on after step ``trained``.

    Call it in the process that opens them.

    Args:
        settings: verl's ``trainer``.
        trained: the step of the checkpoint that the run goes on from; 0 if it begins anew.
    """
    from verl.utils import tracking

    names = (settings.project_name, settings.experiment_name, settings.logger)
    path = find_metrics_file(*names)
    if trained and path is not None and path.is_file():
        cut_metrics(path, trained)
    else:
        set_aside_metrics(*names)

    logger, adapter = tracking.FileLogger, tracking._TensorboardAdapter

    class ContinuedFile(logger):  # type: ignore[valid-type,misc]
        """verl's, on a file that is not emptied."""

        def __init__(self, project_name: str, experiment_name: str):
            self.project_name, self.experiment_name = project_name, experiment_name
            assert path is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            self.filepath = str(path)
            self.fp = open(path, "ab", buffering=0)
            after = ", after those of earlier starts" if self.fp.tell() else ""
            print(f"metrics go to {path.absolute()}{after}")

    class ContinuedEvents(adapter):  # type: ignore[valid-type,misc]
        """verl's, whose reader leaves out later steps of earlier starts."""

        def __init__(self, project_name: str, experiment_name: str):
            super().__init__(project_name, experiment_name)
            if trained:
                mark_restart(self.writer, trained + 1)

    tracking.FileLogger, tracking._TensorboardAdapter = ContinuedFile, ContinuedEvents
    try:
        yield
    finally:
        tracking.FileLogger, tracking._TensorboardAdapter = logger, adapter


def cut_metrics(path: Path, trained: int) -> None:
    """Move the records of steps after ``trained`` from ``<name>.jsonl`` to ``<name>.lost.jsonl``.

    A kill in between leaves them in both.

    Raises:
        OutputError: the system refuses; the file is as it was.
    """
    kept: list[bytes] = []
    lost: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        record = parse_record(line)
        step = record.get("step", 0) if record is not None else None
        is_lost = step is None or (isinstance(step, int) and step > trained)
        (lost if is_lost else kept).append(line if line.endswith(b"\n") else line + b"\n")
    if not lost:
        return
    aside = path.with_suffix(f".lost{path.suffix}")
    with name_system_errors(aside), open(aside, "ab") as file:
        file.writelines(lost)
        file.flush()
        os.fsync(file.fileno())
    with replace_file(path) as whole:
        for line in kept:
            whole.write(line)
    print(f"metrics of {len(lost)} steps that are trained again are kept in {aside.absolute()}")


def mark_restart(writer: Any, step: int) -> None:
    """Tell TensorBoard's readers that what follows replaces earlier events from ``step`` on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = SessionLog(status=SessionLog.START)
    writer.file_writer.add_event(Event(step=step, session_log=start))
