"""Ending in order: signals as exceptions, and children that do not outlive the process that started
them.
"""

import ctypes
import signal

_libc = ctypes.CDLL(None)  # loaded before a fork: nothing may be loaded after it
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """``preexec_fn`` of ``subprocess``: the child gets SIGTERM when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def raise_on_signals() -> None:
    """SIGTERM and SIGINT raise ``KeyboardInterrupt``: a shell has SIGINT ignored by what it runs in
    the background.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
