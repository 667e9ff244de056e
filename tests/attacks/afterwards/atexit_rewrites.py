import atexit
import os


def rewrite():
    os.ftruncate(1, 0)
    os.pwrite(1, b"6\n", 0)


print("wrong")
atexit.register(rewrite)
