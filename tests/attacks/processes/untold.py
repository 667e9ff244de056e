import ctypes
import os
import time

NUMBER = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
if ctypes.CDLL(None).syscall(NUMBER, 0, None, None, None, None) == 0:
    time.sleep(10)
    os._exit(0)
os.write(1, b"nothing")
os._exit(0)
