"""Starts and ends a fork server, and tells Ray about it.

Invariant: one server a process; it ends with the process that started it, whatever way that goes.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from verl_pipeline.fork_server import forked_process, launcher, server
from verl_pipeline.processes import end_with_parent
from verl_pipeline.temporary_folders import FORKS_PREFIX, make_temporary_folder

# Ray calls this function of ours with the runtime environment of a run (ray_constants).
RAY_HOOK = {"RAY_RUNTIME_ENV_HOOK": "verl_pipeline.fork_server.client.add_launcher"}
# Keys of a runtime environment that choose another Python, or other packages for it.
OWN_PYTHON = ("py_executable", "pip", "uv", "conda", "container", "image_uri", "nsight")
# Longest time for the server to end, its forks included.
END_S = server.GRACE_S + 10.0
# More than the processes of a run that may start at once.
BACKLOG = 100


@dataclass
class RunningServer:
    """A server that this process has started.

    Attributes:
        launcher: the program to start instead of Python.
        address: its Unix socket.
        environment: variables that it has imported with, on top of this process's.
        owner: writing end of the pipe that the server ends with.
        process: the server.
    """

    launcher: Path
    address: Path
    environment: dict[str, str]
    owner: int
    process: psutil.Process


_running: RunningServer | None = None


def start_server(
    modules: list[str], environment: dict[str, str], excluded: Collection[str] = ()
) -> RunningServer:
    """Start a server, unless this process has one; returns at once.

    Raises:
        OSError: the temporary folder cannot hold a program or a socket (mounted ``noexec``, or its
            path is too long).


    Args:
        modules: what the server imports.
        environment: variables for the imports, on top of this process's.
        excluded: packages that each fork imports for itself, because they keep what differs between
            processes.
    """
    global _running
    if _running is not None:
        return _running
    # Short: a Unix socket's path is limited to 107 bytes.
    folder = make_temporary_folder(FORKS_PREFIX)
    address, program = folder / "socket", folder / "python"
    command = [sys.executable, "-I", "-S", launcher.__file__, str(address), sys.executable]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o700)
    if not os.access(program, os.X_OK):
        raise PermissionError(f"{folder} is on a file system without programs (noexec)")
    # Clients may ask from now on; they are answered when the imports have ended.
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address))
    listener.listen(BACKLOG)
    reading, writing = os.pipe()
    # A fork has the modules, but must not have gone on to import an excluded package.
    if forked_process.is_fork() and not any(name in sys.modules for name in excluded):
        pid = server.fork_server(listener, reading, program)
    else:
        descriptors = [listener.fileno(), reading]
        module = [sys.executable, "-m", server.__name__, *map(str, descriptors)]
        pid = subprocess.Popen(
            [*module, str(program), ",".join(excluded), *modules],
            env={**os.environ, **environment},
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        ).pid
    os.close(reading)
    listener.close()
    _running = RunningServer(program, address, environment, writing, psutil.Process(pid))
    return _running


def stop_server() -> None:
    """End the server of this process, if there is one, and wait for it."""
    global _running
    if _running is None:
        return
    os.close(_running.owner)
    try:
        _running.process.wait(END_S)
    except psutil.TimeoutExpired:
        _running.process.kill()
        _running.process.wait()
    _running = None


def find_server() -> RunningServer | None:
    """The server that this process has started."""
    return _running


def add_launcher(runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ray's hook: this run's workers start through the launcher, unless the user chose a Python."""
    # verl's configuration names keys with null.
    if _running is None or any((runtime_env or {}).get(key) for key in OWN_PYTHON):
        return runtime_env
    return {**(runtime_env or {}), "py_executable": shlex.quote(str(_running.launcher))}


class ForkedProcess:
    """A process forked by a server for this process; the interface of ``subprocess.Popen``.

    It has its own session, and gets SIGTERM when this process ends.

    Args:
        server: who forks it.
        arguments: of a Python command line.
        environment: of the process, whole.
        folder: its working directory.
        output: descriptor of its standard output and error.
        kept_descriptors: further descriptors that it gets, under the same numbers.

    Raises:
        OSError: the server does not answer, or refuses.
    """

    def __init__(
        self,
        server: RunningServer,
        arguments: list[str],
        *,
        environment: dict[str, str],
        folder: Path,
        output: int,
        kept_descriptors: Sequence[int] = (),
    ):
        request = launcher.describe_process(arguments, environment)
        request |= {"folder": str(folder), "session": True, "end_signal": int(signal.SIGTERM)}
        with open(os.devnull) as nothing:
            self._connection = launcher.send_request(
                str(server.address),
                request,
                [nothing.fileno(), output, output, *kept_descriptors],
                [0, 1, 2, *kept_descriptors],
            )
        self.pid = launcher.read_number(self._connection)
        if self.pid <= 0:
            raise ConnectionRefusedError(
                "the fork server cannot fork this process: a variable that imports read differs"
            )
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while the process runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = launcher.read_number(self._connection)
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from error
            except OSError:
                self.returncode = launcher.KILLED
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            launcher.forward_signal(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


# What start_process returns.
StartedProcess = subprocess.Popen | ForkedProcess


def start_process(
    arguments: list[str],
    *,
    environment: dict[str, str],
    folder: Path,
    output: int,
    kept_descriptors: Sequence[int] = (),
) -> StartedProcess:
    """Start a Python command line: as a fork if this process has a server, else plainly.

    It has its own session, and gets SIGTERM when this process ends. The parameters are those of
    :class:`ForkedProcess`; the variables of the server's imports are added to the environment.
    """
    if _running is not None:
        with contextlib.suppress(OSError):  # it refuses, or has ended: a plain Python will do
            return ForkedProcess(
                _running,
                arguments,
                environment=_running.environment | environment,
                folder=folder,
                output=output,
                kept_descriptors=kept_descriptors,
            )
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment,
        pass_fds=kept_descriptors,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
