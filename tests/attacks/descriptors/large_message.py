import os
import struct


def twice(x):
    os.write(3, struct.pack("<Q", 64 << 20))
    for _ in range(64):
        left = b" " * (1 << 20)
        while left:
            left = left[os.write(3, left) :]
