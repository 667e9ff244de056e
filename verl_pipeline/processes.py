"""Child processes that do not outlive the one that started them, however that ends."""

import ctypes
import signal

_libc = ctypes.CDLL(None)  # loaded before a fork: nothing may be loaded after it
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """``preexec_fn`` of ``subprocess``: the child gets SIGTERM when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
