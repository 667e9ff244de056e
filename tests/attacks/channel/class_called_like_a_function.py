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


def title(text):
    answer(["own", ["class", 1], 0])
    receive()
    send(["l", 5], "value", "Title", ["l", 0], ["l", ["__contains__"]], ["l", ["__contains__"]])
    while True:
        receive()
        send(["l", 2], "value", True)
