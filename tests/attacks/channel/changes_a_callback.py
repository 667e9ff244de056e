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


def visit(items, note):
    for owner in (["yours", 0, 0], ["yours", 1, 0], ["y", "str"], 5, ["lib", "builtins.slice", 1]):
        parts = (owner, 5) if owner == ["lib", "builtins.slice", 1] else (owner,)
        send(["l", 5], "request", "set", *parts, "__code__", None)
        receive()
        send(["l", 6], "request", "call", *parts, None, ["l", []], ["d", 0])
        receive()
