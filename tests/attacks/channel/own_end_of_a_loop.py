import json
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


def square(x):
    own = ["own", ["class", 1], 0]
    send(["l", 2], "raised", ["error", None, 4], own, "", ["t", 0], ["d", 0])
    while True:
        receive()
        base = ["error", "builtins.StopIteration", 0]
        send(["l", 5], "value", "End", ["l", 1], base, None, None)
