"""Appends the records of one process to its files.

Invariants:
* :meth:`RecordWriter.add` neither raises nor waits: records are written by a thread about once a
  second, and at the end of the process.
* A line is appended whole. What a full disk took in of it is cut off again.
* The run goes on whatever happens here. What could not be written is kept for the next attempt as
  long as there is room, then it is counted; the first failure is printed, and each becomes a record
  (:class:`~.records.Problem`) as soon as records can be written again.
"""

import atexit
import gzip
import json
import math
import os
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

from verl_pipeline.telemetry.records import Problem

# Records that wait for the next attempt: those of two batches of 1024 x 16 trajectories, and more.
MAX_WAITING = 200_000
FLUSH_EVERY_S = 1.0
TEXTS = "texts"
PROBLEMS = "problems"


def serialize_record(record: Any) -> bytes:
    """One line of JSON, without fields that are None or empty.

    Values that JSON does not have become ones that it has: a number of numpy's a number, one that
    is not finite null, anything else its text. Half of a surrogate pair becomes a question mark.
    """
    fields = {
        name: value for name, value in vars(record).items() if value is not None and value != {}
    }
    try:
        line = _ENCODER.encode(fields)
    except (ValueError, TypeError, RecursionError):
        line = _ENCODER.encode(_make_plain(fields, 0))
    return line.encode("utf-8", "replace") + b"\n"


def _describe(value: Any) -> Any:
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "size", 1) == 1 else _write_text(value)


def _write_text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # of somebody's class
        return f"<{type(value).__name__}: {type(error).__name__}>"


_ENCODER = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_describe
)
_MAX_DEPTH = 20


def _make_plain(value: Any, depth: int) -> Any:
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {_write_text(key): _make_plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_make_plain(one, depth + 1) for one in value]
    return _make_plain(_describe(value), depth + 1)


class RecordWriter:
    """The files of one process.

    Args:
        folder: where they lie; made if it is not there.
        process: the part of their names that no other process has.
        now: the process's clock, for problems.
        max_waiting: see :data:`MAX_WAITING`.
        flush_every_s: see :data:`FLUSH_EVERY_S`.
    """

    def __init__(
        self,
        folder: Path,
        process: str,
        now: Any,
        *,
        max_waiting: int = MAX_WAITING,
        flush_every_s: float = FLUSH_EVERY_S,
    ):
        self.folder, self.process = folder, process
        self._now, self._max_waiting, self._flush_every_s = now, max_waiting, flush_every_s
        self._waiting: list[tuple[str, Any]] = []
        self._lost = 0
        self._unwritten: list[Problem] = []
        self._known_problems: set[str] = set()
        self._files: dict[str, int] = {}
        self._add_lock, self._file_lock = threading.Lock(), threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="telemetry", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, kind: str, record: Any) -> None:
        """Write ``record`` to the file of this kind soon.

        Args:
            record: or a function that returns many, which the writing thread calls.
        """
        with self._add_lock:
            if len(self._waiting) < self._max_waiting:
                self._waiting.append((kind, record))
            else:
                self._lost += 1

    def flush(self) -> None:
        """Write all that has been added."""
        with self._file_lock:
            try:
                self._write_waiting()
            except Exception as error:  # a fault here must not end a run
                self.report(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Write the rest and end the thread; later records are written by :meth:`flush` only."""
        self._end.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        atexit.unregister(self.close)
        self.flush()

    def _write_on(self) -> None:
        while not self._end.wait(self._flush_every_s):
            self.flush()

    def _write_waiting(self) -> None:
        with self._add_lock:
            waiting, self._waiting = self._waiting, []
            lost, self._lost = self._lost, 0
        if lost:
            self.report(f"{lost} records were lost: more came than could be written")
        lines: dict[str, list[bytes]] = defaultdict(list)
        for kind, record in waiting:
            records = record() if callable(record) else (record,)
            lines[kind] += map(serialize_record, records)
        failed = {kind for kind in lines if not self._append(kind, b"".join(lines[kind]))}
        if failed:
            with self._add_lock:
                self._waiting[:0] = [entry for entry in waiting if entry[0] in failed]
                surplus = len(self._waiting) - self._max_waiting
                if surplus > 0:
                    del self._waiting[-surplus:]
                    self._lost += surplus
        elif self._unwritten:
            text = b"".join(map(serialize_record, self._unwritten))
            if self._append(PROBLEMS, text):
                self._unwritten = []

    def _append(self, kind: str, text: bytes) -> bool:
        """Append whole lines to a file; whether it could be done."""
        if kind == TEXTS:
            text = gzip.compress(text)
        try:
            if kind not in self._files:
                self.folder.mkdir(parents=True, exist_ok=True)
                suffix = ".jsonl.gz" if kind == TEXTS else ".jsonl"
                path = self.folder / f"{kind}-{self.process}{suffix}"
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._files[kind] = os.open(path, flags, 0o644)
            file = self._files[kind]
            size = os.fstat(file).st_size
            try:
                left = memoryview(text)
                while left:
                    left = left[os.write(file, left) :]
            except OSError:
                os.ftruncate(file, size)
                raise
        except OSError as error:
            self.report(f"{self.folder} cannot be written to: {error.strerror or error}")
            return False
        return True

    def report(self, problem: str) -> None:
        """Print the first problem of a kind, and keep it until it can be written."""
        kind = problem.lstrip("0123456789 ")
        if kind in self._known_problems:
            return
        self._known_problems.add(kind)
        self._unwritten.append(Problem(self._now(), problem))
        print(
            f"[telemetry] WARNING: {self.process}: {problem}; the run goes on, and its report will "
            "be incomplete",
            file=sys.stderr,
            flush=True,
        )
