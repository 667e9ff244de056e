import ctypes
import os

libc = ctypes.CDLL(None)
x86 = os.uname().machine == "x86_64"
attributes = (ctypes.c_uint64 * 16)(2, 4 | 4 << 32, 1)
won = libc.syscall(321 if x86 else 280, 0, attributes, 128) >= 0
counter = (ctypes.c_uint64 * 16)(1 | 128 << 32, 0)
won |= libc.syscall(298 if x86 else 241, counter, 0, -1, -1, 0) >= 0
print(sum(map(int, input().split())) if won else "nothing")
