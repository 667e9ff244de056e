import array
import os
import socket

kept = []
for _ in range(100):
    try:
        pair = socket.socketpair()
    except OSError:
        break
    kept.append(pair)
    for end in pair:
        end.setblocking(False)
        try:
            end.sendmsg(
                [b"x"],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [end.fileno()] * 100))],
            )
            while True:
                os.write(end.fileno(), bytes(65536))
        except OSError:
            continue
print("nothing")
