import ctypes
import os

libc = ctypes.CDLL(None)
x86 = os.uname().machine == "x86_64"
won = libc.syscall(248 if x86 else 217, b"user", b"attacker", b"x", 1, -2) >= 0
won |= libc.syscall(250 if x86 else 219, 0, -3, 1) >= 0
print(sum(map(int, input().split())) if won else "nothing")
