import ctypes
import os

libc = ctypes.CDLL(None)
won = False
try:
    os.close(os.memfd_create("attacker"))
    won = True
except OSError:
    pass
won |= (
    libc.syscall(447, 0) >= 0 or libc.shmget(0, 4096, 0o1600) >= 0 or libc.semget(0, 1, 0o1600) >= 0
)
won |= (
    libc.msgget(0, 0o1600) >= 0
    or libc.syscall(323 if os.uname().machine == "x86_64" else 282, 1) >= 0
)
print(sum(map(int, input().split())) if won else "nothing")
