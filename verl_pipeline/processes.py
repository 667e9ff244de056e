"""Ending in order: signals become exceptions, and children do not outlive their parent."""

import ctypes
import signal

_libc = ctypes.CDLL(None)  # loaded before a fork: nothing may be loaded after it
_PR_SET_PDEATHSIG = 1


def signal_on_parent_death(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)


def end_with_parent() -> None:
    """``preexec_fn`` of ``subprocess``: the child gets SIGTERM when its parent ends."""
    signal_on_parent_death(signal.SIGTERM)


def raise_on_signals() -> None:
    """Make SIGTERM and SIGINT raise ``KeyboardInterrupt``.

    A shell starts background commands with SIGINT ignored, so Python's default is not enough.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
