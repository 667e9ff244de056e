"""Runs untrusted programs for the provisional code reward, one at a time, each in a limited child process.

A script of the standard library only, started by `provisional_code` as `python -s -S -P program_server.py WORK_DIR
PARENT_PID`, with one end of a socket pair as standard input. It forks a child for every program, which is cheap
because nothing heavy was ever imported here.

Messages in both directions are a 4-byte big-endian length and that many bytes of JSON:

    request  {"entry_point": str, "code": str, "calls": [[argument, ...], ...]}
    reply    {"status": "finished", "results": [{"value": JSON value} | {"unsupported": type name}, ...]}
             {"status": "compile_error" | "runtime_error" | "time_limit" | "infrastructure", "detail": str}

Invariants:
* expected values never come here: the caller compares;
* a program has a session of its own, limits on CPU time, wall clock, memory, file size and result size, no
  environment, an empty working directory, no other open file than the pipe for its results, and may not start
  processes or threads; when the server is root, the program is not (the limit on processes would not bind root);
* when a reply leaves, the program's process is dead and its directory gone; the next program's process holds nothing of
  it that Python code can reach;
* the server ends when its socket is closed or its parent is dead, whichever is seen first, and removes WORK_DIR. The
  parent is watched by pidfd: PR_SET_PDEATHSIG would fire when the *thread* that started the server ends, and end of
  file alone can be held up by processes forked from the parent.

What is left open, and why this is provisional: a program can read every file its user can read, and use the network,
and if it searches the interpreter's frames it finds the token that marks genuine results. The token stops accidents
and simple tricks such as writing to the pipe; but even with it a program must know the expected values to be accepted.
"""

import contextlib
import ctypes
import importlib
import json
import math
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from typing import Any, NoReturn

CPU_SECONDS = 2
WALL_SECONDS = 10.0  # generous, so that on a busy machine the CPU limit decides
MEMORY_BYTES = 512 * 1024**2
RESULT_BYTES = 1024**2
NESTING_LIMIT = 100
UNPRIVILEGED_ID = 65534  # user and group "nobody"

# Imported before the first fork: shared by all programs, and readable to them even where the interpreter's own
# directory is private to root.
PRELOADED = (
    "_strptime bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools heapq "
    "itertools operator re statistics string textwrap typing unicodedata"
).split()

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_RESULT_FD, _FIRST_UNUSED_FD = 3, 64
_CONFINED, _NOT_CONFINED = b"+", b"-"
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serves requests until the socket is closed or the parent is dead."""
    work_dir, parent_pid = sys.argv[1], int(sys.argv[2])
    try:
        parent = os.pidfd_open(parent_pid)
        if os.getppid() != parent_pid:
            return
        for name in PRELOADED:
            importlib.import_module(name)
        channel = socket.socket(fileno=0)
        while True:
            _serve_one(channel, parent, work_dir)
    finally:
        shutil.rmtree(work_dir)


def _serve_one(channel: socket.socket, parent: int, work_dir: str) -> None:
    # A function of its own: what it holds must be gone when the next program is forked, which could find it.
    (length,) = struct.unpack(">I", _receive(channel, parent, 4))
    reply = _run_program(json.loads(_receive(channel, parent, length)), work_dir, channel, parent)
    channel.sendall(struct.pack(">I", len(reply)) + reply)


def _receive(channel: socket.socket, parent: int, length: int) -> bytes:
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(parent, select.POLLIN)
    data = b""
    while len(data) < length:
        ready = dict(poller.poll())
        chunk = b"" if parent in ready else channel.recv(length - len(data))
        if not chunk:
            sys.exit()
        data += chunk
    return data


def _run_program(request: dict[str, Any], work_dir: str, channel: socket.socket, parent: int) -> bytes:
    token = os.urandom(16).hex().encode()
    directory = tempfile.mkdtemp(dir=work_dir)
    read_end, write_end = os.pipe()
    server_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_program(request, directory, write_end, token, server_pid)
    os.close(write_end)
    try:
        output, in_time = _collect(read_end, channel, parent)
    finally:
        for kill in (os.killpg, os.kill):  # the group may not exist yet
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        os.close(read_end)
        shutil.rmtree(directory)
    if output[:1] != _CONFINED:
        return _reply("infrastructure", "could not limit the program: " + output[1:].decode(errors="replace"))
    if not in_time or usage.ru_utime + usage.ru_stime >= CPU_SECONDS or _ended_by(status, signal.SIGXCPU):
        return _reply("time_limit", f"more than {CPU_SECONDS} s of CPU time or {WALL_SECONDS} s in all")
    if len(output) > RESULT_BYTES:
        return _reply("runtime_error", f"results larger than {RESULT_BYTES} bytes")
    mark, payload = output[1 : 1 + len(token)], output[1 + len(token) :]
    if mark != token or not _is_reply(payload):
        return _reply("runtime_error", f"ended without results (wait status {status})")
    return payload


def _collect(read_end: int, channel: socket.socket, parent: int) -> tuple[bytes, bool]:
    """Returns what the program wrote, up to a little over `RESULT_BYTES`, and whether it ended in time."""
    deadline = time.monotonic() + WALL_SECONDS
    poller = select.poll()
    poller.register(read_end, select.POLLIN)
    poller.register(parent, select.POLLIN)
    poller.register(channel, 0)  # reports only that the other end was closed
    output = bytearray()
    while len(output) <= RESULT_BYTES:
        ready = dict(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
        if not ready:
            return bytes(output), False
        if parent in ready or channel.fileno() in ready:
            sys.exit()
        chunk = os.read(read_end, 65536)
        if not chunk:
            break
        output += chunk
    return bytes(output), True


def _ended_by(wait_status: int, number: int) -> bool:
    return os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) == number


def _reply(status: str, detail: str) -> bytes:
    return json.dumps({"status": status, "detail": detail}).encode()


def _is_reply(payload: bytes) -> bool:
    try:
        reply = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    if not isinstance(reply, dict):
        return False
    if reply.get("status") == "finished":
        results = reply.get("results")
        return isinstance(results, list) and all(isinstance(result, dict) for result in results)
    return reply.get("status") in ("compile_error", "runtime_error") and isinstance(reply.get("detail"), str)


def _be_program(request: dict[str, Any], directory: str, write_end: int, token: bytes, server_pid: int) -> NoReturn:
    try:
        try:
            _confine(directory, write_end, server_pid)
        except Exception as error:
            os.write(write_end, _NOT_CONFINED + repr(error).encode())
            os._exit(1)
        os.write(_RESULT_FD, _CONFINED)
        output = token + _execute(request)
        while output:
            output = output[os.write(_RESULT_FD, output) :]
    finally:
        os._exit(0)


def _confine(directory: str, write_end: int, server_pid: int) -> None:
    os.setsid()
    os.environ.clear()
    os.chdir(directory)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    if os.geteuid() == 0:
        os.chown(directory, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which resets it
    if os.getppid() != server_pid:
        raise ProcessLookupError("the server is gone")
    null = os.open(os.devnull, os.O_RDWR)
    # First out of the way: the pipe may have any of the numbers that are overwritten next.
    spare = os.dup2(write_end, _FIRST_UNUSED_FD)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(spare, _RESULT_FD)
    os.closerange(_RESULT_FD + 1, _FIRST_UNUSED_FD + 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _execute(request: dict[str, Any]) -> bytes:
    try:
        program = compile(request["code"], "<program>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        return _reply("compile_error", type(error).__name__)
    namespace: dict[str, Any] = {"__name__": "__program__"}
    random.seed(0)
    try:
        exec(program, namespace)
        function = namespace[request["entry_point"]]
        # Encoded call by call: a later call may change what an earlier one returned.
        results = [_encode(function(*arguments)) for arguments in request["calls"]]
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: whatever it is, the program raised it
        return _reply("runtime_error", type(error).__name__)
    output = f'{{"status": "finished", "results": [{", ".join(results)}]}}'.encode()
    return output if len(output) < RESULT_BYTES - 64 else _reply("runtime_error", "results too large")


def _encode(value: object) -> str:
    if _is_json(value, 0):
        return json.dumps({"value": value})
    return json.dumps({"unsupported": type(value).__name__})


def _is_json(value: Any, depth: int) -> bool:
    """Exact types only: a tuple, a subclass or a key that is no string is not silently turned into JSON."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if depth >= NESTING_LIMIT:
        return False
    if kind is list:
        return all(_is_json(item, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str and _is_json(item, depth + 1) for key, item in value.items())
    return value is None or kind in (bool, int, str)


if __name__ == "__main__":
    main()
