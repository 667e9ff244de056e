"""Waits that end.

Invariant: an error raised here names who is awaited, since when, and what to do.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceeded(TimeoutError):
    """Somebody was awaited for too long."""


def run_with_deadline(call: Callable[[], T], seconds: float, awaited: str, advice: str) -> T:
    """Run ``call`` in a thread of its own and wait for it at most ``seconds``.

    Args:
        awaited: who is awaited, for the error ("weight sync of v_3 to 2 replicas ...").
        advice: what the user can do.

    Raises:
        DeadlineExceeded: after ``seconds``; the thread is left behind, and dies with the process that the error ends.
    """
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["value"] = call()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, name=f"deadline: {awaited}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise DeadlineExceeded(f"{awaited}: no answer for {seconds:g} s; {advice}")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
