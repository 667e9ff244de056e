import socket

left, right = socket.socketpair()
left.settimeout(0.2)
try:
    while True:
        left.sendall(bytes(65536))
except OSError:
    print("nothing")
