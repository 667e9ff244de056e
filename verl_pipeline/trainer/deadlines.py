"""Waits with a deadline.

Invariant: the error says who is awaited, since when, and what to do.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceeded(TimeoutError):
    """Somebody did not answer in time."""


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
    outcome: dict[str, Any] = {}

    def record_outcome() -> None:
        try:
            outcome["value"] = call()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=record_outcome, name=f"deadline: {awaited}", daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        thread.join(min(left, watch_every_s))
        if not thread.is_alive():
            break
        watchdog()
    else:
        raise DeadlineExceeded(f"{awaited}: no answer for {seconds:g} s; {advice}")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
