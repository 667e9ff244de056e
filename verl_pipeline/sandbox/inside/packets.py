"""Packets of JSON between the judge and the processes of the jail that it trusts.

The sockets keep the bounds of packets; a packet may carry descriptors.
"""

import array
import json
import os
import socket

MAX_PACKET_BYTES = 1 << 16
MAX_DESCRIPTORS = 8


def receive_packet(channel):
    """Return ``(data, descriptors)``; ``data`` is empty once the peer has closed the channel."""
    size = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    data, ancillary, _flags, _address = channel.recvmsg(MAX_PACKET_BYTES, size)
    descriptors = array.array("i")
    for _level, _kind, content in ancillary:
        descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return data, list(descriptors)


def receive_request(channel):
    """Return ``(message, descriptors)``, or None once the peer has closed the channel."""
    data, descriptors = receive_packet(channel)
    return (json.loads(data), descriptors) if data else None


def send_reply(channel, message):
    """Send a message; one that is too long for a packet is cut, so that it is no JSON."""
    channel.send(json.dumps(message).encode()[:MAX_PACKET_BYTES])
