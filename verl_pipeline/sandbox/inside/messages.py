"""Messages between the process of the tests and that of the program: a length, then text.

Invariant: a message that is longer than its reader allows is refused before it is read.
"""

import struct

# Length in bytes: 64 bits, unsigned, little-endian.
_HEADER = struct.Struct("<Q")


def send_message(channel, text):
    """Send one message; the peer calls :func:`receive_message`."""
    data = text.encode()
    channel.sendall(_HEADER.pack(len(data)) + data)


def receive_message(channel, max_bytes):
    """Return the next message, or None once the peer has closed the channel.

    Raises:
        ValueError: the message is too long, or is not valid UTF-8.
    """
    header = _receive_bytes(channel, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > max_bytes:
        raise ValueError(f"a message of {length} bytes")
    data = _receive_bytes(channel, length)
    return None if data is None else data.decode()


def _receive_bytes(channel, length):
    """Return exactly ``length`` bytes, or None if the channel ends before."""
    data = bytearray()
    while len(data) < length:
        chunk = channel.recv(min(length - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)
