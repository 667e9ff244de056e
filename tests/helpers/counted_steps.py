"""Counts the work of Python code, so that tests tell linear from quadratic without a clock.

Invariant: the count is the same on every machine and under every load.
"""

import sys
from collections.abc import Callable
from typing import Any


def count_steps(function: Callable, *arguments: Any) -> int:
    """Call ``function``; return how many lines of Python it executes, callees included.

    Work within one call of C code is not seen.
    """
    steps = 0

    def trace(_frame, _event, _argument):
        nonlocal steps
        steps += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(previous)
    return steps
