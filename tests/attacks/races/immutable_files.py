import fcntl
import os
import struct

if os.path.isdir("/inside"):
    for flag in (0x10, 0x20):  # immutable, append only
        with open(f"attacker{flag}", "w") as file:
            try:
                fcntl.ioctl(file, 0x40086602, struct.pack("l", flag))  # FS_IOC_SETFLAGS
            except OSError:
                continue
print("nothing")
