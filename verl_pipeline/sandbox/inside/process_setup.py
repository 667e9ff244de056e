"""Prepares a forked process to become a program: its descriptors, streams and visible modules."""

import gc
import io
import os
import sys

# Higher than any other descriptor of a process that is about to become a program, and below its
# limit of descriptors.
_HIGH_DESCRIPTOR = 100


def prepare_streams(stdin, stdout, stderr, extras, ready):
    """Set up descriptors and streams as in a new Python process, and close all other descriptors.

    ``extras`` stay open as numbers 3 and up. Returns the new number of ``ready``, which must be
    closed before the program starts.
    """
    ready = os.dup2(ready, _HIGH_DESCRIPTOR, inheritable=False)
    extras = [os.dup2(extra, ready + number) for number, extra in enumerate(extras, start=1)]
    for number, descriptor in enumerate((stdin, stdout, stderr, *extras)):
        os.dup2(descriptor, number)
    os.closerange(3 + len(extras), ready)
    os.closerange(ready + 1, 1 << 20)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", 0, closefd=False), "utf-8", "backslashreplace", write_through=True
    )
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    sys.argv = ["solution.py"]
    # The streams do not belong to the program's objects (:mod:`interpreter_end`).
    gc.freeze()
    gc.enable()
    return ready


def hide_jail_modules(names):
    """Hide the jail's modules from the program, which could import them by mistake.

    They hold no secret: a program that looks for them can find them.
    """
    for name in names:
        sys.modules.pop(name, None)
    sys.path[0] = os.getcwd()
