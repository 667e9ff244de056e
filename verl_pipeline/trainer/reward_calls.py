"""Calls of a synchronous reward function, each with a deadline that starts with the call.

verl calls such a function in the few threads of a reward worker's event loop, for which a call that
never returns is lost for ever: after six of them (on two CPUs) the worker grades nothing more.

Invariants:
* The caller has its answer or an error within ``seconds`` of the function's start, and its own
  thread back. The error shows the line at which the function hangs.
* A thread is reused once its call has ended, so that a function may keep things by thread. One that
  was given up is never used again; it ends with its call.
* No more than ``most_abandoned`` calls are left behind. After that every call is refused, until one
  of them returns or the process is replaced (:mod:`.rewards.reward_workers`).
"""

import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any

from verl_pipeline.trainer.deadlines import DeadlineExceeded

# Threads that do nothing cost little, but each one that computes takes its share of the
# interpreter from the others.
MOST_ABANDONED = 256
# Innermost frames of a hanging call that its error shows.
_SHOWN_FRAMES = 4


class TooManyHangingCalls(RuntimeError):
    """A reward worker has left so many calls behind that it takes no more."""


class BoundedCalls:
    """``function`` with a deadline for each call; to be called from any thread.

    Args:
        function: called in a thread of this object's own.
        seconds: longest time of one call.
        setting: where ``seconds`` comes from, for the error.
        most_abandoned: calls that may be left behind at a time.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        seconds: float,
        setting: str,
        most_abandoned: int = MOST_ABANDONED,
    ):
        self.function = function
        self.seconds = seconds
        self.setting = setting
        self.most_abandoned = most_abandoned
        # Calls that were given up and have not returned.
        self.abandoned = 0
        self._lock = threading.Lock()
        self._idle_threads: list[_CallThread] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns or raises.

        Raises:
            DeadlineExceeded: it did not return in time.
            TooManyHangingCalls: it was not called.
        """
        thread = self._take_thread()
        outcome = thread.start_call(partial(self.function, *args, **kwargs))
        wait([outcome], timeout=self.seconds)
        with self._lock:
            if outcome.done():
                self._idle_threads.append(thread)
                return outcome.result()
            thread.is_abandoned = True
            self.abandoned += 1
        raise DeadlineExceeded(
            f"the reward function {describe_function(self.function)} has not returned for "
            f"{self.seconds:g} s ({self.setting}); {self.abandoned} of its calls hang in this "
            f"worker, this one at\n{thread.describe_place()}"
        )

    def _take_thread(self) -> "_CallThread":
        with self._lock:
            if self.abandoned >= self.most_abandoned:
                raise TooManyHangingCalls(
                    f"{self.abandoned} calls of the reward function "
                    f"{describe_function(self.function)} hang in this worker: it takes no more"
                )
            if self._idle_threads:
                return self._idle_threads.pop()
        thread = _CallThread(self)
        thread.start()
        return thread

    def end_call(self, thread: "_CallThread", outcome: Future, answer: Any, error: Any) -> bool:
        """Deliver what a call gave; returns whether its thread may be used again."""
        with self._lock:
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(answer)
            if thread.is_abandoned:
                self.abandoned -= 1
            return not thread.is_abandoned


class _CallThread(threading.Thread):
    """A thread that runs one call at a time; it does not keep its process alive."""

    def __init__(self, calls: BoundedCalls):
        super().__init__(name="reward call", daemon=True)
        self.is_abandoned = False
        self._calls = calls
        self._requests: SimpleQueue[tuple[Callable[[], Any], Future]] = SimpleQueue()

    def start_call(self, call: Callable[[], Any]) -> Future:
        outcome: Future = Future()
        self._requests.put((call, outcome))
        return outcome

    def run(self) -> None:
        may_go_on = True
        while may_go_on:
            call, outcome = self._requests.get()
            answer, error = None, None
            try:
                answer = call()
            except BaseException as raised:  # a user's function may raise SystemExit
                error = raised
            may_go_on = self._calls.end_call(self, outcome, answer, error)

    def describe_place(self) -> str:
        """The innermost frames of the running call."""
        frame = sys._current_frames().get(self.ident or 0)
        return (
            "".join(traceback.format_stack(frame)[-_SHOWN_FRAMES:]) if frame else "(it has ended)"
        )


def describe_function(function: Callable[..., Any]) -> str:
    """Module and name of a function, also inside verl's ``partial`` of it and its arguments."""
    while isinstance(function, partial):
        wrapped = [value for value in function.args if callable(value)]
        function = wrapped[0] if wrapped else function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}.{name}"
