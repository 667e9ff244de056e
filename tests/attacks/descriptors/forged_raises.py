import json
import socket
import struct

NAMES = [
    "SystemExit",
    "KeyboardInterrupt",
    "__import__",
    "exit",
    "UnicodeDecodeError",
    "__debug__",
    None,
    3,
]


def twice(x):
    channel = socket.socket(fileno=3)
    for name in NAMES:
        text = json.dumps([["l", 3], "raised", name, "0"]).encode()
        channel.sendall(struct.pack("<Q", len(text)) + text)
