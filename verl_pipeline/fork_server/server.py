"""The process that has imported everything, and forks itself on request.

``python -m verl_pipeline.fork_server.server LISTENER OWNER LAUNCHER EXCLUDED MODULE...`` imports
the modules, but nothing of the EXCLUDED packages (joined by commas). Then it serves at the Unix
socket LISTENER until the pipe whose reading end is OWNER is closed (both are descriptors), and
removes the socket's folder.

Invariants:
* One thread, and no descriptor of the server in a fork.
* A fork whose launcher goes away is killed; so are all when the server ends.
"""

import contextlib
import gc
import importlib
import importlib.abc
import json
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import sys
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
from verl_pipeline.processes import signal_on_parent_death

# Read by modules while they are imported; a process that has another value must import for itself.
IMPORT_VARIABLES = (
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "PYTHONPATH",
    "TRANSFORMERS_OFFLINE",
    "VLLM_LOGGING_LEVEL",
    "VLLM_PLUGINS",
)
# A client that connects says at once what it wants.
REQUEST_S = 10.0
# For forks to end by themselves once the owner has gone, before they are killed.
GRACE_S = 30.0


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
        connection, _address = self.listener.accept()
        connection.settimeout(REQUEST_S)
        descriptors: list[int] = []
        try:
            head, descriptors, _flags, _from = socket.recv_fds(connection, 8, 1000)
            body = b""
            while len(body) < int.from_bytes(head, "big"):
                part = connection.recv(1 << 16)
                if not part:
                    raise ConnectionResetError("a client left in the middle of its request")
                body += part
            request = json.loads(body)
            if not can_fulfil(request):
                connection.sendall(b"0\n")
                raise ValueError("a variable that imports read differs")
        except (OSError, ValueError):
            connection.close()
            for number in descriptors:
                os.close(number)
            return None
        pid = os.fork()
        if pid == 0:
            signal_on_parent_death(signal.SIGKILL)
            self._close_all(connection)
            place_descriptors(descriptors, request["descriptors"])
            return request
        for number in descriptors:
            os.close(number)
        fork = Fork(pid, connection, request["end_signal"])
        watched = os.pidfd_open(pid)
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


def can_fulfil(request: dict[str, Any]) -> bool:
    """Whether a fork would be what a plain Python with this environment would have become."""
    environment = request["environment"]
    if any(environment.get(name) != os.environ.get(name) for name in IMPORT_VARIABLES):
        return False
    return split_arguments(request["arguments"]) is not None


class ExcludedPackage(BaseException):
    """An import has reached a package that forks must import for themselves.

    No Exception: a module that could do without the package must not settle for that.
    """


class ExclusionFinder(importlib.abc.MetaPathFinder):
    """Stops every import of some packages."""

    def __init__(self, packages: set[str]):
        self.packages = packages

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in self.packages:
            raise ExcludedPackage(fullname)


def import_modules(names: list[str], excluded: set[str]) -> None:
    """Import what forks will need, as far as that needs no excluded package.

    A module that needs one is left out, but not the modules that it imported before that. A module
    that is missing here is missing in the forks as well.
    """
    finder = ExclusionFinder(excluded)
    sys.meta_path.insert(0, finder)
    for name in names:
        with contextlib.suppress(ImportError, ExcludedPackage):
            importlib.import_module(name)
    sys.meta_path.remove(finder)
    gc.collect()
    # Without it, the first collection in each fork would copy every page that holds an object.
    gc.freeze()


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


def fork_server(listener: socket.socket, owner: int, writing: int, launcher: Path) -> int:
    """Fork a server from a process that has everything imported; returns its process id.

    Args:
        owner: reading end of the pipe that the server ends with.
        writing: its other end, which the server must not hold.
    """
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.setsid()
        multiprocessing.set_executable(str(launcher))
        run_server(listener, owner)
    return pid


def main() -> None:
    """Import, then serve."""
    listener, owner, launcher, excluded, *modules = sys.argv[1:]
    sys.path.pop(0)  # the folder that ``-m`` puts there
    # Imports take seconds, in which the owner may end without being noticed otherwise.
    signal_on_parent_death(signal.SIGTERM)
    import_modules(modules, set(excluded.split(",")))
    signal_on_parent_death(0)
    multiprocessing.set_executable(launcher)
    run_server(socket.socket(fileno=int(listener)), int(owner))


if __name__ == "__main__":
    main()
