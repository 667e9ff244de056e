"""Prepares a forked process to become a program: its descriptors, streams and visible modules."""

import io
import os
import sys

# Higher than any other descriptor of a process that is about to become a program, and below its
# limit of descriptors.
_HIGH_DESCRIPTOR = 100


def open_streams():
    """Open the standard streams as a new Python process does, on three empty files.

    :func:`place_descriptors` replaces the files by those of a run, which are files in memory too.
    """
    for number in range(3):
        descriptor = os.memfd_create("stream")
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", 0, closefd=False), "utf-8", "backslashreplace", write_through=True
    )
    for stream, name, mode in ((sys.stdin, "<stdin>", "r"), (sys.stdout, "<stdout>", "w")):
        stream.buffer.raw.name, stream.mode = name, mode
    sys.stderr.buffer.name, sys.stderr.mode = "<stderr>", "w"
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    sys.argv = ["solution.py"]


def place_descriptors(stdin, stdout, stderr, extras, ready):
    """Give a run's descriptors the numbers of the standard streams, and close all others.

    ``extras`` stay open as numbers 3 and up. Returns the new number of ``ready``, which must be
    closed before the program starts.
    """
    ready = os.dup2(ready, _HIGH_DESCRIPTOR, inheritable=False)
    extras = [os.dup2(extra, ready + number) for number, extra in enumerate(extras, start=1)]
    for number, descriptor in enumerate((stdin, stdout, stderr, *extras)):
        os.dup2(descriptor, number)
    os.closerange(3 + len(extras), ready)
    os.closerange(ready + 1, 1 << 20)
    return ready


def hide_jail_modules(names):
    """Hide the jail's modules from the program, which could import them by mistake.

    They hold no secret: a program that looks for them can find them.
    """
    for name in names:
        sys.modules.pop(name, None)
    sys.path[0] = os.getcwd()
