import ctypes
import os
import socket
import sys

libc = ctypes.CDLL(None)
for folder in (".", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/inside", "/packages"):
    try:
        os.mkdir(os.path.join(folder, "attacker"))
    except OSError:
        continue
libc.shmget(0xA77AC, 4096, 0o1666)
libc.msgget(0xA77AC, 0o1666)
libc.semget(0xA77AC, 1, 0o1666)
libc.prctl(15, b"attacker", 0, 0, 0)
os.environ["ATTACKER"] = "here"
sys.attacker = True
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
libc.connect(pair[0].fileno(), b"\x00" * 16, 16)
try:
    pair[0].bind("\x00attacker")
except OSError:
    pass
if os.fork() == 0:
    import time

    time.sleep(10)
print("nothing")
