import ctypes
import os
import time

CLONE_PARENT, CLONE_VFORK, SIGCHLD = 0x8000, 0x4000, 17
NUMBER = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
libc = ctypes.CDLL(None)
others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) > 1]
made = 0
for flags in (CLONE_PARENT, CLONE_PARENT | CLONE_VFORK, CLONE_PARENT | (1 << 32)) * 40:
    child = libc.syscall(NUMBER, flags | SIGCHLD, None, None, None, None)
    if child == 0:
        time.sleep(10)
        os._exit(0)
    made += child > 0
line = input()
os.write(1, b"%d" % (sum(map(int, line.split())) if made or len(others) > 1 else 6))
os._exit(0)
