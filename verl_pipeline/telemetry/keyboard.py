"""Single keys from a terminal, without Enter.

Invariant: the terminal is left as it was found, however the block ends.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def read_keys() -> Iterator[Callable[[float], str | None]]:
    """Yield a function that waits for a key: it takes seconds, and returns the key or None.

    Without a terminal on standard input it only waits.
    """
    descriptor = _find_terminal()
    if descriptor is None:
        yield _wait
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _read_key(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _find_terminal() -> int | None:
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return None
    return descriptor if os.isatty(descriptor) else None


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _read_key(descriptor: int, seconds: float) -> str | None:
    if not select.select([descriptor], [], [], seconds)[0]:
        return None
    # Nothing to read although it is ready: the terminal has gone, and nobody looks any more.
    return os.read(descriptor, 1).decode(errors="replace") or "q"
