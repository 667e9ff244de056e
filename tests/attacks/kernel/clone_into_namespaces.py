import ctypes
import os

libc = ctypes.CDLL(None)
NUMBER = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
arguments = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17, 0, 0, 0)
won = False
for child in (
    libc.syscall(NUMBER, 0x10000000 | 17, None, None, None, None),
    libc.syscall(435, arguments, 64),
):
    if child == 0:
        os._exit(0)
    won |= child > 0
os.write(1, str(sum(map(int, os.read(0, 1000).split()))).encode() if won else b"nothing")
os._exit(0)
