"""Child processes for :mod:`benchmarks.rollout`: one per engine, controlled through pipes.

Invariants:
* No wait without a timeout; the error names the process that is awaited.
* When the block of :func:`start_engines` ends, all processes have ended.
"""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rollout_engines import START_TIMEOUT_S, ServerSettings, start_offline, start_pool
from verl_pipeline.processes import wait_until_ended

# Seconds for a child to end its engine, and for its descendants to follow before they are killed.
END_TIMEOUT_S = 90.0
KILL_TIMEOUT_S = 10.0


class EngineProcess:
    """A child process that starts an engine and measures work with it.

    Args:
        start: called as ``start(servers, model)`` in the child; a context manager that yields a
            function from a request to its measurement.
        name: name of the process in messages.
        log: file for the child's output.
    """

    def __init__(self, start: Callable, servers: ServerSettings, model: str, name: str, log: Path):
        context = get_context("spawn")
        self.name, self.log = f"{name} ({servers.name})", log
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(
            target=_serve_requests, args=(child_pipe, start, servers, model, log)
        )
        self._process.start()
        child_pipe.close()
        self._descendants: list[psutil.Process] = []

    def send_request(self, request: Any) -> None:
        """Send a request; :meth:`receive_result` returns its result."""
        self._pipe.send(request)

    def receive_result(self, timeout_s: float, task: str) -> dict[str, Any]:
        """Return the next result of the child.

        Args:
            task: what the child is doing, for messages.

        Raises:
            TimeoutError: no result after ``timeout_s``.
            RuntimeError: the child failed, with its traceback, or died.
        """
        self._record_descendants()
        try:
            if not self._pipe.poll(timeout_s):
                raise TimeoutError(
                    f"{self.name}: no result after {timeout_s:g} s of: {task}; see {self.log}"
                )
            result = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise RuntimeError(f"{self.name} ended during: {task}; see {self.log}") from error
        if "error" in result:
            raise RuntimeError(
                f"{self.name} failed during: {task}; see {self.log}\n{result['error']}"
            )
        return result

    def request_end(self) -> None:
        """Let the child end after its current request."""
        self._record_descendants()
        self._pipe.close()

    def wait_or_kill(self) -> None:
        """Wait until the child and its descendants have ended; kill those that remain, by id."""
        self._record_descendants()
        self._process.join(END_TIMEOUT_S)
        alive = wait_until_ended(self._descendants, KILL_TIMEOUT_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.join(KILL_TIMEOUT_S)

    def _record_descendants(self) -> None:
        # After the child's death its descendants cannot be found any more.
        with contextlib.suppress(psutil.NoSuchProcess):
            self._descendants = [
                *{*self._descendants, *psutil.Process(self._process.pid).children(recursive=True)}
            ]


def _serve_requests(pipe, start: Callable, servers: ServerSettings, model: str, log: Path) -> None:
    """Serve requests in the child until the pipe closes, which the parent's death also causes."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        with start(servers, model) as measure:
            pipe.send({})  # ready
            while True:
                try:
                    request = pipe.recv()
                except EOFError:
                    return
                pipe.send(measure(request))
    except Exception:
        pipe.send({"error": traceback.format_exc()})
        raise


@contextlib.contextmanager
def start_engines(
    servers: ServerSettings, model: str, logs: Path
) -> Iterator[tuple[EngineProcess, list[EngineProcess]]]:
    """Start the rollout pool and its reference, one vLLM process per replica."""
    name = servers.name.replace(" ", "-")
    processes: list[EngineProcess] = []
    try:
        log = logs / f"{name}-pool.log"
        processes.append(EngineProcess(start_pool, servers, model, "rollout pool", log))
        for rank in range(servers.replicas):
            log = logs / f"{name}-offline-{rank}.log"
            processes.append(
                EngineProcess(start_offline, servers, model, f"vLLM offline {rank}", log)
            )
        for process in processes:
            process.receive_result(START_TIMEOUT_S, "start")
        yield processes[0], processes[1:]
    finally:
        for process in processes:
            process.request_end()
        for process in processes:
            process.wait_or_kill()
