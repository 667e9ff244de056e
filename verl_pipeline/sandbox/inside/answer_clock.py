"""Counts how long tests have waited for answers of a program, across their processes.

The clock is a file in memory of eight bytes. The tests write it, and so does the judge once the
tests have ended; the supervisors of both runs read it, so that neither run is charged for the time
in which it is the other's turn. The program cannot reach it.

Invariant: one write or read is one number, so a reader never sees half of a change.
"""

import os
import struct
import time
from contextlib import contextmanager

# Seconds waited so far; or while a wait goes on, the negative of its start minus those seconds, so
# that adding the present time gives the seconds waited so far.
_NUMBER = struct.Struct("<d")


def start_wait(clock):
    """Let the seconds of ``clock`` (a descriptor) run; nothing changes if they do already."""
    now = time.monotonic()
    os.pwrite(clock, _NUMBER.pack(read_awaited_seconds(clock, now) - now), 0)


def end_wait(clock):
    """Stop the seconds of ``clock``."""
    os.pwrite(clock, _NUMBER.pack(read_awaited_seconds(clock, time.monotonic())), 0)


def read_awaited_seconds(clock, now):
    """Return the seconds waited until ``now`` (``time.monotonic()``)."""
    data = os.pread(clock, _NUMBER.size, 0)
    if not data:  # nobody has waited yet
        return 0.0
    (number,) = _NUMBER.unpack(data)
    return number if number >= 0 else number + now


@contextmanager
def awaiting(clock):
    """Count the time inside of this context as waited."""
    start_wait(clock)
    try:
        yield
    finally:
        end_wait(clock)
