"""Runs commands, each in a fork of one warm process: what a process of its own does, but quickly.

``python -m tests.helpers.command_server MODULE ...`` imports the modules, then reads one JSON
object a line from standard input, runs ``python -m MODULE ARGUMENTS`` as it says and answers with
one JSON object a line.

Invariants:
* Every command has a deadline, after which it is killed with all processes it has started.
* A command may not use root's right to read any file, so that an unreadable file is one.
* The memory that a command may add is limited where the request says so.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

_POLL_S = 0.005
_CAPABILITIES_VERSION = 0x20080522  # linux/capability.h
_IGNORES_MODES = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def run_request(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command; return its exit code (negative: a signal; None: killed at its deadline)."""
    child = os.fork()
    if child == 0:
        _become_command(request)
    with contextlib.suppress(ProcessLookupError):
        os.setpgid(child, child)
    deadline = time.monotonic() + request["deadline_s"]
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _kill_group(child)  # what it has left
            return {"exit_code": os.waitstatus_to_exitcode(status)}
        time.sleep(_POLL_S)
    _kill_group(child)
    os.waitpid(child, 0)
    return {"exit_code": None}


def _become_command(request: dict[str, Any]) -> NoReturn:
    """Run the module as ``python -m`` does; what it raises ends the process as anywhere else."""
    os.setpgid(0, 0)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, descriptor)
    sys.stdin = open(0, closefd=False)
    os.chdir(request["folder"])
    _drop_capabilities()
    if request["memory_bytes"]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + request["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.argv = [request["module"], *request["arguments"]]
    sys.modules.pop(request["module"])  # it becomes __main__, and runpy warns of a second copy
    exit_code = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        exit_code = _read_exit_code(error)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        exit_code = 1
    _end_process(exit_code)


def _read_exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _end_process(exit_code: int) -> NoReturn:
    """End as Python does, but without freeing memory: that would first copy all of the server's."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        exit_code = exit_code or 120  # as Python has it
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(exit_code)


def _drop_capabilities() -> None:
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~_IGNORES_MODES  # effective, of the first 32
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what modules print while they are imported is no answer
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all memory that it looks at
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(run_request(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
