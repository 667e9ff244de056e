"""What a forked process does before and after its program, to be like a new Python.

Invariants:
* Nothing that may differ between processes is left of the server: environment, folder, descriptors,
  signals, priority, limits, random numbers.
* It ends without unwinding the frames of the process that was forked.
"""

import atexit
import contextlib
import fcntl
import gc
import io
import os
import resource
import runpy
import signal
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

from verl_pipeline.fork_server.warm_imports import set_by_imports

# Options of a Python command line that a fork can follow, without an argument.
FLAGS = {"-u", "-B", "-s", "-E", "-I", "-P"}
_is_fork = False


def split_arguments(arguments: list[str]) -> tuple[str, list[str]] | None:
    """How a Python command line names its program ("-c", "-m" or "script"), and what follows.

    None if there is an option that a fork cannot follow.
    """
    rest = list(arguments)
    while rest and rest[0] in FLAGS:
        rest.pop(0)
    if len(rest) >= 2 and rest[0] in ("-c", "-m"):
        return rest[0], rest[1:]
    if rest and not rest[0].startswith("-"):
        return "script", rest
    return None


def place_descriptors(received: list[int], wanted: list[int]) -> None:
    """Give the received descriptors the numbers that they had in the launcher."""
    # First to numbers above all of them: a place may be taken by one that has not moved yet.
    above = max([*received, *wanted]) + 1
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, above) for number in received]
    for number in received:
        os.close(number)
    for copy, number in zip(moved, wanted, strict=True):
        os.dup2(copy, number, inheritable=True)
        os.close(copy)


def is_fork() -> bool:
    """Whether a server has forked this process, so that it has everything imported."""
    return _is_fork


def become_process(request: dict[str, Any]) -> None:
    """In a fork: take over what the launcher was, and run its program."""
    global _is_fork
    _is_fork = True
    if request["session"]:
        os.setsid()
    elif request["group"]:
        os.setpgid(0, 0)  # Ray kills the group of a worker that has ended
    replace_environment(set_by_imports | request["environment"])
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.sched_setaffinity(0, request["processors"])
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    for number, limits in request["limits"]:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(number, tuple(limits))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(request["oom_score_adj"]))
    for number in signal.valid_signals():
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    renew_state(is_unbuffered="-u" in request["arguments"][:1] or "PYTHONUNBUFFERED" in os.environ)
    gc.unfreeze()
    run_program(request["arguments"])


def replace_environment(environment: dict[str, str]) -> None:
    """Set the variables to these, and change no others.

    What sets a process's title (setproctitle, and Ray's copy of it) looks for the memory of the
    title in front of the first variable, as the kernel has placed it.
    """
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def renew_state(is_unbuffered: bool) -> None:
    """Renew what Python's modules keep of the process they were imported in."""
    import tempfile

    import numpy as np

    tempfile.tempdir = None  # of another TMPDIR
    np.random.seed()  # every fork would draw the same numbers; ``random`` renews itself
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=stream.isatty(), write_through=is_unbuffered)


def run_program(arguments: list[str]) -> None:
    """Run a Python command line in this process."""
    program = split_arguments(arguments)
    assert program is not None, "the server has checked it"
    kind, rest = program
    sys.argv = rest if kind != "-c" else ["-c", *rest[1:]]
    if kind == "script":
        sys.path.insert(0, str(Path(rest[0]).resolve().parent))
        runpy.run_path(rest[0], run_name="__main__")
    elif kind == "-m":
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, "")
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(module))


def end_process(error: BaseException | None) -> NoReturn:
    """End as an interpreter does, without unwinding the frames of whoever forked."""
    code = 0
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        code = error.code or 0
    elif error is not None:
        code = 1
        if isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        else:
            traceback.print_exception(error)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:  # multiprocessing's resource tracker closes its own
            stream.flush()
    os._exit(code)
