import socket

try:
    won = bool(socket.getaddrinfo("localhost", 80))
except OSError:
    won = False
print(sum(map(int, input().split())) if won else "nothing")
