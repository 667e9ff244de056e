"""Ending in order: signals become exceptions, and children do not outlive their parent."""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType

import psutil

_libc = ctypes.CDLL(None)  # loaded before a fork: nothing may be loaded after it
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.01


def signal_on_parent_death(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)


def signal_on_hangup(pipe: int, number: int) -> None:
    """Have the kernel send this process a signal when the pipe's other end is closed, or written.

    Unlike a thread that waits for it, this does not need Python's lock, which a function may hold.
    """
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, number)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it happened before
        os.kill(os.getpid(), number)


def end_with_parent() -> None:
    """``preexec_fn`` of ``subprocess``: the child gets SIGTERM when its parent ends."""
    signal_on_parent_death(signal.SIGTERM)


def handle_end_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Have ``handler`` called on SIGINT, SIGTERM and SIGHUP (the terminal has closed).

    A shell starts background commands with SIGINT ignored, so Python's default is not enough.
    SIGHUP stays ignored if it is: that is what ``nohup`` is for.
    """
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def raise_on_signals() -> None:
    """Make the signals that end a command raise ``KeyboardInterrupt``."""
    handle_end_signals(signal.default_int_handler)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended; it may still wait for its parent to read its exit code."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def wait_until_ended(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait for processes to end; returns those that have not.

    Unlike ``psutil.wait_procs`` it does not wait for others to read the exit codes: process 1 of
    some machines takes seconds.
    """
    deadline = time.monotonic() + timeout_s
    alive = [process for process in processes if not has_ended(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        alive = [process for process in alive if not has_ended(process)]
    return alive
