import socket

try:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind("\x00attacker")
        channel.listen()
    won = True
except OSError:
    won = False
print(sum(map(int, input().split())) if won else "nothing")
