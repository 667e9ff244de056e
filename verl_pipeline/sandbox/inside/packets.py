"""Packets of JSON between the judge and the processes of the jail that it trusts.

The sockets keep the bounds of packets; a packet may carry descriptors.
"""

import json
import os
import socket

MAX_PACKET_BYTES = 1 << 16
MAX_DESCRIPTORS = 8


def receive_packet(channel, buffer):
    """Receive a packet into ``buffer``; return its size and a sequence of its descriptors.

    The size is 0 once the peer has closed the channel.
    """
    ancillary_size = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    size, ancillary, _flags, _address = channel.recvmsg_into([buffer], ancillary_size)
    if not ancillary:
        return size, ()
    ((_level, _kind, content),) = ancillary
    descriptors = memoryview(content).cast("i")
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return size, descriptors


def receive_request(channel):
    """Return ``(message, descriptors)``, or None once the peer has closed the channel."""
    buffer = bytearray(MAX_PACKET_BYTES)
    size, descriptors = receive_packet(channel, buffer)
    return (json.loads(buffer[:size]), descriptors) if size else None


def send_reply(channel, message):
    """Send a message; one that is too long for a packet is cut, so that it is no JSON."""
    channel.send(json.dumps(message).encode()[:MAX_PACKET_BYTES])
