import os
import struct


def twice(x):
    os.write(3, struct.pack("<Q", 2**63) + b"x" * 1000)
