import ctypes
import os

STATX, LISTMOUNT = {"x86_64": (332, 458), "aarch64": (291, 458)}[os.uname().machine]
UNIQUE_MOUNT_ID = 0x4000
libc = ctypes.CDLL(None)
buffer = ctypes.create_string_buffer(1024)
won = libc.syscall(STATX, -100, b"/proc", 0, UNIQUE_MOUNT_ID, buffer) == 0
request = (ctypes.c_uint64 * 4)(24, 0xFFFFFFFFFFFFFFFF, 0, 0)
won |= libc.syscall(LISTMOUNT, request, buffer, 100, 0) > 0
line = input()
print(sum(map(int, line.split())) if won else "nothing")
