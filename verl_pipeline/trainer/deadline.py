"""Waits that end.

Invariant: an error raised here names who is awaited, since when, and what to do.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceeded(TimeoutError):
    """Somebody was awaited for too long."""


def run_with_deadline(
    call: Callable[[], T],
    seconds: float,
    awaited: str,
    advice: str,
    *,
    watchdog: Callable[[], None],
    watch_every_s: float,
) -> T:
    """Run ``call`` in a thread of its own and wait for it at most ``seconds``.

    Args:
        awaited: who is awaited, for the error ("weight sync of v_3 to 2 replicas ...").
        advice: what the user can do.
        watchdog: called every ``watch_every_s`` seconds of the wait; raises if somebody awaited is
            dead.
        watch_every_s: see ``watchdog``.

    Raises:
        DeadlineExceeded: after ``seconds``; the thread is left behind, and dies with the process
            that the error ends.
        Exception: what ``call`` or the watchdog raised.
    """
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["value"] = call()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, name=f"deadline: {awaited}", daemon=True)
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
