import json
import os
import socket
import struct

channel = socket.socket(fileno=3)


def send(*parts):
    text = json.dumps(parts).encode()
    channel.sendall(struct.pack("<Q", len(text)) + text)


def receive():
    (length,) = struct.unpack("<Q", channel.recv(8, socket.MSG_WAITALL))
    return json.loads(channel.recv(length, socket.MSG_WAITALL))


def answer(*parts):
    send(["l", 4], "value", *parts, ["l", []], ["d", 0])


def twice(x):
    answer(["l", 40], *[["lib", "builtins.bytearray", 1], 50_000_000] * 40)
    os._exit(0)
