"""Messages between the process of tests and the program's: a length, then text.

Invariant: a message above the limit is refused before it is read.
"""

import struct

_HEADER = struct.Struct("<Q")
MOST_BYTES = 64 << 20


def send(channel, text):
    """One message; the peer reads it with :func:`receive`."""
    data = text.encode()
    channel.sendall(_HEADER.pack(len(data)) + data)


def receive(channel):
    """The next message, or None once the peer has closed."""
    header = _exactly(channel, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > MOST_BYTES:
        raise ValueError(f"a message of {length} bytes")
    data = _exactly(channel, length)
    return None if data is None else data.decode()


def _exactly(channel, length):
    data = bytearray()
    while len(data) < length:
        chunk = channel.recv(min(length - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)
