"""What a process records about the run that it belongs to.

Invariants:
* One recorder a process and run folder: whoever asks gets the same.
* With telemetry switched off everything here does nothing.
"""

import os
import platform
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verl_pipeline.telemetry.clock import Clock
from verl_pipeline.telemetry.records import (
    FOLDER,
    FORMAT,
    ClockSample,
    Gauge,
    Header,
    Pool,
    Span,
    StepRecord,
    Text,
    TrajectoryEvent,
)
from verl_pipeline.telemetry.writer import TEXTS, RecordWriter

_KINDS: dict[type, str] = {
    Header: "run",
    ClockSample: "run",
    Span: "spans",
    Gauge: "gauges",
    TrajectoryEvent: "trajectories",
    StepRecord: "steps",
    Text: TEXTS,
}


@dataclass(frozen=True)
class RunTarget:
    """Where a run's processes record; small, since it travels to them.

    Attributes:
        folder: of the run; None: nowhere.
        header: of the run; each process fills in its own role, host, process id and start.
        texts_per_step: trajectories of a step whose texts are kept.
    """

    folder: str | None
    header: Header
    texts_per_step: int = 0


class Recorder:
    """Records of one process.

    Args:
        target: where to; None: nowhere.
        role: see :class:`~.records.Header`.
    """

    def __init__(self, target: RunTarget | None, role: str = ""):
        self.clock = Clock()
        self.target, self.role = target, role
        self._started = self.clock.now()
        self._host = socket.gethostname()
        self._writer: RecordWriter | None = None
        if target is not None and target.folder is not None:
            process = f"{role}-{self._host}-{os.getpid()}-{round(1000 * self._started)}"
            self._writer = RecordWriter(Path(target.folder) / FOLDER, process, self.clock.now)

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self._writer is not None

    def now(self) -> float:
        """This moment, on this process's clock."""
        return self.clock.now()

    def add(self, record: Any) -> None:
        """Append a record of :mod:`.records`."""
        if self._writer is not None:
            self._writer.add(_KINDS[type(record)], record)

    def add_many(self, kind: type, make_records: Callable[[], Iterable[Any]]) -> None:
        """Append records that the writing thread makes; nobody waits for that.

        Args:
            kind: their class.
        """
        if self._writer is not None:
            self._writer.add(_KINDS[kind], make_records)

    def add_header(self, header: Header) -> None:
        """Append the run's header as this process's."""
        self.add(
            replace(
                header,
                format=FORMAT,
                role=self.role,
                host=self._host,
                pid=os.getpid(),
                started=self._started,
                versions={**header.versions, "python": platform.python_version()},
            )
        )

    @contextmanager
    def record_span(
        self,
        pool: Pool,
        lane: str,
        name: str,
        *,
        step: int | None = None,
        batch: int | None = None,
        **detail: Any,
    ) -> Iterator[None]:
        """Record how long a block takes, also if it raises."""
        start = self.now()
        try:
            yield
        finally:
            self.add(Span(pool, lane, name, start, self.now(), step, batch, detail))

    @contextmanager
    def survive(self, what: str) -> Iterator[None]:
        """Let the run go on if a block that only records fails.

        Args:
            what: is missing then, for the warning.
        """
        try:
            yield
        except Exception as error:
            if self._writer is not None:
                cause = f"{type(error).__name__}: {error}".partition("\n")[0]
                self._writer.report(f"{what} could not be recorded ({cause})")

    def flush(self) -> None:
        """Write what has been recorded."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write the rest."""
        if self._writer is not None:
            self._writer.close()


_recorders: dict[tuple[int, str | None], Recorder] = {}


def open_recorder(target: RunTarget, role: str) -> Recorder:
    """This process's recorder of the run, with its header written.

    The driver writes its own, once it knows at which step it begins.
    """
    key = (os.getpid(), target.folder)
    if key not in _recorders:
        _recorders[key] = recorder = Recorder(target, role)
        if role != "driver":
            recorder.add_header(replace(target.header, settings={}))
    return _recorders[key]


def find_recorder() -> Recorder | None:
    """This process's recorder, if it has opened one."""
    return next((found for (pid, _), found in _recorders.items() if pid == os.getpid()), None)
