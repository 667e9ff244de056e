"""Waits with a deadline.

Invariant: the error says who is awaited, since when, and what to do.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


class DeadlineExceeded(TimeoutError):
    """Somebody did not answer in time."""


def start_call(call: Callable[[], T], name: str) -> "Future[T]":
    """Run ``call`` in a thread of this name, which does not keep the process alive."""
    future: Future[T] = Future()

    def record_outcome() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=record_outcome, name=name, daemon=True).start()
    return future


def run_with_deadline(
    call: Callable[[], T],
    seconds: float,
    awaited: str,
    advice: str,
    *,
    watchdog: Callable[[], None],
    watch_every_s: float,
) -> T:
    """Run ``call`` in its own thread and wait for it at most ``seconds``.

    Args:
        awaited: who is awaited, for the error ("weight sync of v_3 to 2 replicas ...").
        advice: what the user can do.
        watchdog: called every ``watch_every_s`` seconds of the wait; raises if a process that the
            call depends on has died.

    Raises:
        DeadlineExceeded: after ``seconds``. The thread stays behind; it ends with the process,
            which this error is meant to stop.
        Exception: whatever ``call`` or the watchdog raised.
    """
    outcome = start_call(call, f"deadline: {awaited}")
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        wait([outcome], min(left, watch_every_s))
        if outcome.done():
            return outcome.result()
        watchdog()
    raise DeadlineExceeded(f"{awaited}: no answer for {seconds:g} s; {advice}")
