"""The process that has imported everything, and forks itself on request.

``python -m verl_pipeline.fork_server.server LISTENER OWNER LAUNCHER EXCLUDED MODULE...`` imports
the modules, but nothing of the EXCLUDED packages (joined by commas). Then it serves at the Unix
socket LISTENER until the pipe whose reading end is OWNER is closed (both are descriptors), and
removes the socket's folder.

Invariants:
* No thread of Python's but the main one, since a fork copies locks but not who holds them; no
  descriptor of the server in a fork.
* A request that cannot be fulfilled is refused; the server and the other forks go on.
* A fork whose launcher goes away is killed; so are all when the server ends.
"""

import contextlib
import json
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from verl_pipeline.fork_server.forked_process import (
    become_process,
    end_process,
    place_descriptors,
    split_arguments,
)
from verl_pipeline.fork_server.warm_imports import find_differing_variables, import_modules
from verl_pipeline.processes import signal_on_parent_death

# Longest time for a client to send its request, once it has connected.
REQUEST_S = 10.0
# For forks to end by themselves once the owner has gone, before they are killed. A training waits
# for its engines and for Ray before it removes their shared memory.
GRACE_S = 90.0
# Pause after a connection could not be accepted, for want of descriptors.
ACCEPT_PAUSE_S = 0.1


@dataclass
class Fork:
    """A forked process.

    Attributes:
        pid: its process id.
        connection: to the launcher, or the program, that stands for it.
        end_signal: what it gets when that goes away.
    """

    pid: int
    connection: socket.socket
    end_signal: int


class Server:
    """Accepts requests, forks, and reports how the forks end."""

    def __init__(self, listener: socket.socket, owner: int):
        self.listener = listener
        self.owner = owner
        self.forks: dict[int, Fork] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, "listener")
        self.selector.register(owner, selectors.EVENT_READ, "owner")

    def serve(self) -> dict[str, Any] | None:
        """Serve until the owner goes away.

        Returns:
            In a fork, the request that it has to fulfil; in the server, at its end, None.
        """
        while True:
            for key, _events in self.selector.select():
                if key.data == "owner":
                    self._end_forks()
                    return None
                if key.data == "listener":
                    request = self._accept_request()
                    if request is not None:
                        return request
                elif key.data in self.forks:
                    self._handle_event(self.forks[key.data], key.fileobj)

    def _accept_request(self) -> dict[str, Any] | None:
        """Fork for the next client; returns its request in the fork only."""
        try:
            connection, _address = self.listener.accept()
        except OSError:
            time.sleep(ACCEPT_PAUSE_S)
            return None
        descriptors: list[int] = []
        try:
            request = _receive_request(connection, descriptors)
            pid = os.fork()
        except Exception as error:  # whatever it is, the other forks go on
            _refuse_request(connection, descriptors, error)
            return None
        if pid == 0:
            signal_on_parent_death(signal.SIGKILL)
            self._close_all(connection)
            place_descriptors(descriptors, request["descriptors"])
            return request
        try:
            watched = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _refuse_request(connection, descriptors, error)
            return None
        for number in descriptors:
            os.close(number)
        fork = Fork(pid, connection, request["end_signal"])
        self.forks[pid] = fork
        self.selector.register(watched, selectors.EVENT_READ, pid)
        self.selector.register(connection, selectors.EVENT_READ, pid)
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % pid)
        return None

    def _handle_event(self, fork: Fork, source: Any) -> None:
        if source is fork.connection:  # clients say nothing: it was closed
            self.selector.unregister(fork.connection)
            os.kill(fork.pid, fork.end_signal)
            return
        self.selector.unregister(source)
        os.close(source)
        self._report_end(fork)

    def _report_end(self, fork: Fork) -> None:
        _pid, status = os.waitpid(fork.pid, 0)
        with contextlib.suppress(OSError):
            fork.connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        with contextlib.suppress(KeyError):
            self.selector.unregister(fork.connection)
        fork.connection.close()
        del self.forks[fork.pid]

    def _end_forks(self) -> None:
        """Wait for the forks to end, then kill those that have not."""
        deadline = time.monotonic() + GRACE_S
        while self.forks and time.monotonic() < deadline:
            for key, _events in self.selector.select(0.2):
                if key.data in self.forks:
                    self._handle_event(self.forks[key.data], key.fileobj)
        for fork in list(self.forks.values()):
            os.kill(fork.pid, signal.SIGKILL)
            self._report_end(fork)

    def _close_all(self, connection: socket.socket) -> None:
        """In a fork: nothing of the server's stays open."""
        for key in list(self.selector.get_map().values()):
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            elif isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self.selector.close()
        connection.close()


def _receive_request(connection: socket.socket, descriptors: list[int]) -> dict[str, Any]:
    """A client's request; ``descriptors`` gets those that it sends.

    Raises:
        OSError: the client is slow, or has gone and lets a plain Python do it.
        ValueError: a fork would not be what a plain Python would become.
    """
    connection.settimeout(REQUEST_S)
    head, received, _flags, _from = socket.recv_fds(connection, 8, 1000)
    descriptors += received
    body = b""
    while len(body) < int.from_bytes(head, "big"):
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionResetError("a client left in the middle of its request")
        body += part
    request = json.loads(body)
    if differing := find_differing_variables(request["environment"]):
        raise ValueError(f"{', '.join(differing)}: not as when the modules were imported")
    if split_arguments(request["arguments"]) is None:
        raise ValueError(f"an option that a fork cannot follow: {request['arguments'][:2]}")
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        if not connection.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError("a client left before its request was read")
    connection.settimeout(REQUEST_S)
    return request


def _refuse_request(connection: socket.socket, descriptors: list[int], error: Exception) -> None:
    """Let the client start a plain Python, and say why: it costs seconds."""
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed
        print(f"fork server: a process starts slowly: {error!r}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        connection.sendall(b"0\n")
    connection.close()
    for number in descriptors:
        os.close(number)


def run_server(listener: socket.socket, owner: int) -> NoReturn:
    """Serve, and end; a fork comes back here to become what was asked for, and ends here too."""
    error = None
    try:
        request = Server(listener, owner).serve()
        if request is None:
            shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
        else:
            become_process(request)
    except BaseException as caught:
        error = caught
    end_process(error)


def fork_server(listener: socket.socket, owner: int, launcher: Path) -> int:
    """Fork a server from a process that has everything imported; returns its process id.

    Args:
        owner: reading end of the pipe that the server ends with.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # every fork would write what is in the buffer
    pid = os.fork()
    if pid == 0:
        _blank_descriptors(kept={0, 1, 2, listener.fileno(), owner})
        os.setsid()
        multiprocessing.set_executable(str(launcher))
        run_server(listener, owner)
    return pid


def _blank_descriptors(kept: set[int]) -> None:
    """Let go of what this process has open: locks, and the end of a pipe that others wait for.

    The numbers stay taken, because the objects that hold them may close them later.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in kept and number != nothing:
            with contextlib.suppress(OSError):  # the one that listed the folder
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def main() -> None:
    """Import, then serve."""
    listener, owner, launcher, excluded, *modules = sys.argv[1:]
    sys.path.pop(0)  # the folder that ``-m`` puts there
    # Imports take seconds, in which the owner may end without being noticed otherwise.
    signal_on_parent_death(signal.SIGTERM)
    import_modules(modules, set(excluded.split(",")))
    signal_on_parent_death(0)
    if threading.active_count() > 1:
        sys.exit(f"an import has started threads: {threading.enumerate()}; forks could hang")
    multiprocessing.set_executable(launcher)
    run_server(socket.socket(fileno=int(listener)), int(owner))


if __name__ == "__main__":
    main()
