import socket

won = False
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            won = True
            channel.sendto(b"x", ("127.0.0.1" if family is socket.AF_INET else "::1", 9))
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
