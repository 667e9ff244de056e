"""An event loop whose clock jumps to the next timer, so that hours of waiting take no time."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs what is ready; when nothing is, it is at once the time of the next timer."""

    _virtual_s = 0.0

    def time(self) -> float:
        return self._virtual_s

    def _run_once(self) -> None:
        if not self._ready:
            timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
            assert timers, "everything waits, and nothing will ever end that"
            self._virtual_s = max(self._virtual_s, min(timers))
        super()._run_once()


def run_in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    """``asyncio.run`` on a virtual clock that starts at 0."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
