"""What crosses between a judge and its jails: sockets, and files in memory.

Invariant: a child that the judge forks holds no socket of its, so that the end of the judge ends
its jails.
"""

import contextlib
import fcntl
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def socket_pair(
    kind: socket.SocketKind = socket.SOCK_SEQPACKET,
) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets."""
    pair = socket.socketpair(socket.AF_UNIX, kind)
    _sockets.update(pair)
    return pair


def close(one: socket.socket) -> None:
    """So that the other side sees it, whoever else holds the socket."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _close_in_child() -> None:
    for one in list(_sockets):
        one.close()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def file(content: bytes | None = None) -> Iterator[int]:
    """A descriptor of a file in memory; with ``content`` nobody can change it any more."""
    descriptor = os.memfd_create("run", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if content is not None:
            with open(descriptor, "wb", closefd=False) as written:
                written.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        yield descriptor
    finally:
        os.close(descriptor)


def size(descriptor: int) -> int:
    """Bytes of a file."""
    return os.fstat(descriptor).st_size


def content(descriptor: int, last: int | None = None) -> bytes:
    """Of a file: all, or the ``last`` bytes."""
    length = size(descriptor)
    start = 0 if last is None else max(0, length - last)
    return os.pread(descriptor, length - start, start)
