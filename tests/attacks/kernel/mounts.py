import ctypes
import os

libc = ctypes.CDLL(None)
won = False
if os.path.isdir("/inside"):
    won |= libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0
    won |= libc.mount(b"/", b"/tmp", None, 4096, None) == 0
    won |= libc.mount(None, b"/", None, 32 | 4096, None) == 0
    won |= libc.umount2(b"/proc", 2) == 0 or libc.umount2(b"/tmp", 2) == 0
    won |= libc.syscall(155, b"/", b"/tmp") == 0 if os.uname().machine == "x86_64" else False
    won |= libc.syscall(430, b"tmpfs", 0) >= 0 or libc.syscall(428, -100, b"/", 1) >= 0
print(sum(map(int, input().split())) if won else "nothing")
