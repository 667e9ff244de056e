"""Sockets and files in memory that connect a judge with its jails.

Invariant: a child that the judge forks holds none of these sockets, so that the jails end with the
judge.
"""

import contextlib
import fcntl
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_open_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def make_socket_pair(
    kind: socket.SocketKind = socket.SOCK_SEQPACKET,
) -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets."""
    pair = socket.socketpair(socket.AF_UNIX, kind)
    _open_sockets.update(pair)
    return pair


def close_socket(channel: socket.socket) -> None:
    """Shut down and close a socket; the peer sees the end even if others hold the socket too."""
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)
    channel.close()


def _close_sockets_in_child() -> None:
    for channel in list(_open_sockets):
        channel.close()


os.register_at_fork(after_in_child=_close_sockets_in_child)


@contextmanager
def open_memory_file(content: bytes | None = None) -> Iterator[int]:
    """Yield the descriptor of a file in memory; a file with ``content`` is sealed: read only."""
    descriptor = os.memfd_create("run", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if content is not None:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        yield descriptor
    finally:
        os.close(descriptor)


def get_file_size(descriptor: int) -> int:
    """Return the size of a file in bytes."""
    return os.fstat(descriptor).st_size


def read_file(descriptor: int, tail_bytes: int | None = None) -> bytes:
    """Read a whole file, or its last ``tail_bytes`` bytes."""
    size = get_file_size(descriptor)
    start = 0 if tail_bytes is None else max(0, size - tail_bytes)
    return os.pread(descriptor, size - start, start)
