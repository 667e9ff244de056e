import os
import struct


def twice(x):
    os.write(3, struct.pack("<Q", 100) + b'[["l", 3], "value"')
    os.close(3)
