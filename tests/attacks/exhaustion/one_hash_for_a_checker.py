import json
import os


def pair(n):
    members = [["t", [1] * 200 + [-1 - (i >> bit & 1) for bit in range(14)]] for i in range(9000)]
    text = json.dumps([["s", len(members)], *members]).encode()
    while text:
        text = text[os.write(3, text) :]
    os._exit(0)
