import ctypes
import os

won = os.uname().machine == "x86_64" and ctypes.CDLL(None).syscall(0x40000000 + 39) == os.getpid()
print(sum(map(int, input().split())) if won else "nothing")
