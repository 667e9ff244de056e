"""Provisional reward for code: runs a response's function on every test and compares what it returns.

verl calls `compute_score` for each response, from several threads of a reward worker. It stands in until the grading
and sandbox rooms exist, and is deleted then; `program_server` says which holes it leaves.

Invariants:
* the program runs in a process of its own, and gets the arguments of the tests but never the expected values;
* every result has the same keys, of the same types: `score` and `acc` (1.0 or 0.0) and `verdict`;
* a failure of the machinery is the verdict `infrastructure`, logged, and no judgement on the program. The server is
  then replaced, so that the next program is graded;
* at most one server per process, started at the first use; neither it nor its files outlive the process.
"""

import atexit
import json
import logging
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_SERVER = Path(__file__).with_name("program_server.py")
_REPLY_SECONDS = 60.0  # the server's own limit is 10 s; the rest is for its start on a busy machine
_TURN_SECONDS = 1800.0  # for the programs of other threads that are before this one
_CLOSE_SECONDS = 5.0
_CODE_BLOCK = re.compile(r"^```[^\n`]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


class _ServerError(Exception):
    """The server did not give a usable reply."""


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    work_dir: str


_server: _Server | None = None
_lock = threading.Lock()


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """Scores one response.

    Args:
        data_source: unused, part of verl's interface.
        solution_str: the response, as text without special tokens.
        ground_truth: JSON object with `entry_point` (function name) and `tests`, a list of
            `{"args": [...], "expected": ...}`.
        extra_info: unused, part of verl's interface.

    Returns:
        `score` and `acc` (both 1.0 if all tests pass, else 0.0), and `verdict`: accepted, wrong_answer, time_limit,
        runtime_error, compile_error, no_code, or infrastructure if the program could not be judged.

    Raises:
        ValueError: `ground_truth` is not such an object.
    """
    try:
        problem = json.loads(ground_truth)
        calls = [test["args"] for test in problem["tests"]]
        expected = [test["expected"] for test in problem["tests"]]
        entry_point = problem["entry_point"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"ground_truth lacks entry_point, tests, args or expected: {ground_truth[:200]!r}") from error
    verdict = _judge(solution_str, entry_point, calls, expected)
    score = 1.0 if verdict == "accepted" else 0.0
    return {"score": score, "acc": score, "verdict": verdict}


def extract_code(response: str) -> str | None:
    """Returns the content of the last complete fenced block after the last `</think>`, or None if there is none."""
    blocks = _CODE_BLOCK.findall(response.rpartition("</think>")[2])
    return blocks[-1] if blocks else None


def close() -> None:
    """Ends the server of this process, if there is one; the next program starts another."""
    global _server
    with _lock:
        if _server is not None:
            _stop(_server, graceful=True)
            _server = None


def _judge(response: str, entry_point: str, calls: list[list[Any]], expected: list[Any]) -> str:
    code = extract_code(response)
    if code is None:
        return "no_code"
    try:
        reply = _run({"entry_point": entry_point, "code": code, "calls": calls})
    except _ServerError as error:
        logger.error("The program for %s could not be judged: %s", entry_point, error)
        return "infrastructure"
    if reply["status"] == "infrastructure":
        logger.error("The program for %s could not be judged: %s", entry_point, reply["detail"])
    if reply["status"] != "finished":
        return reply["status"]
    results = reply["results"]
    accepted = len(results) == len(expected) and all(
        "value" in result and _same(result["value"], value) for result, value in zip(results, expected, strict=True)
    )
    return "accepted" if accepted else "wrong_answer"


def _same(actual: Any, expected: Any) -> bool:
    """Equality of JSON values in which True is not 1 and 1 is not 1.0."""
    if type(actual) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(_same, actual, expected))
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(_same(actual[key], expected[key]) for key in expected)
    return actual == expected


def _run(request: dict[str, Any]) -> dict[str, Any]:
    global _server
    if not _lock.acquire(timeout=_TURN_SECONDS):
        raise _ServerError(f"no turn within {_TURN_SECONDS:.0f} s; use more reward workers")
    try:
        if _server is None:
            _server = _start()
        try:
            return _exchange(_server.channel, request)
        except (OSError, EOFError, ValueError) as error:
            _stop(_server, graceful=False)
            _server = None
            raise _ServerError(f"program server failed ({error!r}); the next program starts another") from error
    finally:
        _lock.release()


def _start() -> _Server:
    work_dir = tempfile.mkdtemp(prefix="verl_pipeline_programs_")
    ours, theirs = socket.socketpair()
    # No environment that a program could read. A fixed hash seed: the order of a set must not depend on the worker.
    environment = {"PYTHONHASHSEED": "0"}
    if "LD_LIBRARY_PATH" in os.environ:  # some interpreters do not start without it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    try:
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", str(_SERVER), work_dir, str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        shutil.rmtree(work_dir)
        raise _ServerError(f"program server did not start: {error}") from error
    finally:
        theirs.close()
    return _Server(process, ours, work_dir)


def _exchange(channel: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + _REPLY_SECONDS
    data = json.dumps(request).encode()
    channel.settimeout(_REPLY_SECONDS)
    channel.sendall(struct.pack(">I", len(data)) + data)
    (length,) = struct.unpack(">I", _receive(channel, 4, deadline))
    return json.loads(_receive(channel, length, deadline))


def _receive(channel: socket.socket, length: int, deadline: float) -> bytes:
    data = b""
    while len(data) < length:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = channel.recv(length - len(data))
        if not chunk:
            raise EOFError("it closed the connection")
        data += chunk
    return data


def _stop(server: _Server, graceful: bool) -> None:
    server.channel.close()
    if not graceful:
        server.process.kill()
    try:
        server.process.wait(_CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait(_CLOSE_SECONDS)
    if os.path.isdir(server.work_dir):  # a server that ends by itself has removed it
        shutil.rmtree(server.work_dir)


def _forget_server() -> None:
    """In a forked child: the server, and perhaps the lock, belong to the parent."""
    global _server, _lock
    if _server is not None:
        _server.channel.close()
    _server = None
    _lock = threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_forget_server)
