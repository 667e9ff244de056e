import ctypes
import os

libc = ctypes.CDLL(None)
buffer = ctypes.create_string_buffer(8)
local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
won = (
    libc.process_vm_readv(1, local, 1, local, 1, 0) > 0
    or libc.process_vm_writev(1, local, 1, local, 1, 0) > 0
)
try:
    won |= libc.syscall(438, os.pidfd_open(1), 0, 0) >= 0  # pidfd_getfd
except OSError:
    pass
print(sum(map(int, input().split())) if won else "nothing")
