"""Starts a run again when it dies: ``trainer.v1.one_off_pipeline.restarts=N``.

:mod:`verl_pipeline.main` becomes this program, which starts :mod:`verl_pipeline.main` as an attempt
and waits for it.

Invariants:
* It imports neither torch nor Ray nor verl, so it lives through what kills these.
* At most N times in a row without a newer complete checkpoint; each time after a longer pause. A
  run that ends well, was interrupted or has wrong settings is not started again.
* The signals that end a command reach the attempt, which ends in order. If this program is killed,
  the attempt gets SIGTERM.
* What an attempt leaves behind (processes, shared memory, sockets, temporary folders) is gone
  before the next begins.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from verl_pipeline import shared_memory
from verl_pipeline.errors import show_line
from verl_pipeline.processes import end_with_parent, handle_end_signals
from verl_pipeline.run_end import RunEnd, remove_sockets
from verl_pipeline.temporary_folders import FORKS_PREFIX, SOCKETS_PREFIX, remove_left_folders
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import find_newest

# Of an attempt: the descriptor to which it writes what ended it.
CAUSE_VARIABLE = "VERL_PIPELINE_CAUSE_DESCRIPTOR"
# Exit codes of verl_pipeline.main after which nothing is started again: success, wrong settings,
# interrupted.
FINAL_CODES = (0, 2, 130)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.1
_GRACE_S, _END_S = 3.0, 8.0
_CAUSE_CHARACTERS = 400


@dataclass(frozen=True)
class Attempt:
    """How an attempt ended.

    Attributes:
        code: its exit code; negative: the signal that killed it.
        cause: what it said itself; "" if it was killed.
        seconds: how long it ran.
    """

    code: int
    cause: str
    seconds: float

    def describe(self) -> str:
        """In words."""
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit code {self.code}{f' ({self.cause})' if self.cause else ''}"


def is_attempt() -> bool:
    """Whether this process is an attempt of :func:`supervise`."""
    return CAUSE_VARIABLE in os.environ


def report_cause(error: BaseException) -> None:
    """Tell the supervisor, if there is one, what ends this attempt."""
    if not is_attempt():
        return
    # The last line of a remote error is that of its cause.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[-1] if lines else ''}"
    with contextlib.suppress(OSError, ValueError):
        os.write(int(os.environ[CAUSE_VARIABLE]), show_line(text)[:_CAUSE_CHARACTERS].encode())


def become_supervisor(restarts: int, checkpoints: Path, words: Sequence[str]) -> NoReturn:
    """Replace this process by a supervisor of ``verl_pipeline.main`` with ``words``."""
    sys.stdout.flush()
    sys.stderr.flush()
    settings = json.dumps([restarts, str(checkpoints), list(words)])
    os.execv(sys.executable, [sys.executable, "-m", "verl_pipeline.restarts", settings])


def supervise(
    restarts: int,
    checkpoints: Path,
    command: Sequence[str],
    pauses: tuple[float, float] = (FIRST_PAUSE_S, LONGEST_PAUSE_S),
) -> int:
    """Run ``command`` until it ends well or has failed too often; returns its last exit code.

    Args:
        restarts: at most so many in a row without a newer complete checkpoint.
        checkpoints: ``trainer.default_local_dir``.
        command: of an attempt. Once there is a checkpoint of this run, later ones get
            ``trainer.resume_mode=auto``.
        pauses: the first and the longest pause before a restart, in seconds.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signals = _Signals()
    reached, number, without_progress = _find_reached(checkpoints), 0, 0
    words = list(command)
    while True:
        number += 1
        attempt = _run_attempt(words, signals)
        if attempt.code in FINAL_CODES or signals.has_come:
            return _to_exit_code(attempt.code)
        now = _find_reached(checkpoints)
        if now != reached:
            reached, without_progress = now, 0
            words = [*command, "trainer.resume_mode=auto"]
        step = f"step {now[1]}" if now[1] else "the beginning"
        ended = f"attempt {number} ended after {attempt.seconds:.0f} s: {attempt.describe()}"
        if without_progress == restarts:
            _print_line(
                f"{ended}; no newer checkpoint in {restarts} restarts, so this was the last; the "
                f"same command goes on from {step}"
            )
            return _to_exit_code(attempt.code)
        pause = min(pauses[0] * 2**without_progress, pauses[1])
        without_progress += 1
        _print_line(
            f"{ended}; goes on from {step} in {pause:.0f} s (restart {without_progress} of "
            f"{restarts} without a newer checkpoint)"
        )
        signals.wait(pause)
        if signals.has_come:
            return _to_exit_code(attempt.code)


class _Signals:
    """The signals that end a command: passed on to the attempt, if one runs."""

    def __init__(self) -> None:
        self.has_come = False
        self._process: subprocess.Popen | None = None
        handle_end_signals(self._take)

    def _take(self, number: int, _frame) -> None:
        self.has_come = True
        if self._process is not None:
            self._process.send_signal(number)

    def pass_on(self, process: subprocess.Popen | None) -> None:
        """To ``process`` from now on, with what has come before."""
        self._process = process
        if self.has_come and process is not None:
            process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Wait for so long, or for a signal."""
        deadline = time.monotonic() + seconds
        while not self.has_come and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _run_attempt(command: Sequence[str], signals: _Signals) -> Attempt:
    before, began = shared_memory.list_segments(), time.monotonic()
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, CAUSE_VARIABLE: str(writer)},
            pass_fds=(writer,),
            # The terminal's Ctrl-C reaches this process, which passes it on once.
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        signals.pass_on(process)
        code = process.wait()
        signals.pass_on(None)
        os.set_blocking(reader, False)
        try:
            cause = os.read(reader, 4 * _CAUSE_CHARACTERS).decode(errors="replace")
        except BlockingIOError:  # a process that is left holds the other end
            cause = ""
    finally:
        os.close(reader)
        os.close(writer)
    seconds = time.monotonic() - began
    _end_leftovers()
    for segment in shared_memory.find_unused_segments() - before:
        segment.unlink(missing_ok=True)
    return Attempt(code, cause, seconds)


def _end_leftovers() -> None:
    """End what an attempt that was killed has left: this process is its new parent."""
    left = RunEnd(lambda: psutil.Process().children(recursive=True))
    if left.processes:
        left.end_engines(_END_S)
        left.end_rest(_GRACE_S, _END_S)
        remove_sockets()
    for prefix in (SOCKETS_PREFIX, FORKS_PREFIX):
        remove_left_folders(prefix)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _find_reached(checkpoints: Path) -> tuple[int, int]:
    """Serial and step of the newest complete checkpoint."""
    newest = find_newest(checkpoints)
    if newest is None:
        return 0, 0
    return (newest.manifest.serial if newest.manifest else 0), newest.step


def _to_exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _print_line(text: str) -> None:
    print(f"[restarts] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    given_restarts, folder, given_words = json.loads(sys.argv[1])
    program = [sys.executable, "-m", "verl_pipeline.main", *given_words]
    sys.exit(supervise(given_restarts, Path(folder), program))
