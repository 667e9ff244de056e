import mmap
import os

MARK = b"attacker was here"
found = False
with open("/proc/self/maps") as file:
    shared = [line.split() for line in file if line.split()[1] == "rw-s"]
found |= bool(shared)
for number in range(256):
    try:
        if os.fstat(number).st_size < len(MARK):
            os.truncate(number, len(MARK))
        with mmap.mmap(number, 0) as view:
            found |= MARK in view[:]
            view[: len(MARK)] = MARK
    except (OSError, ValueError):
        continue
line = input()
os.ftruncate(1, 0)
print(sum(map(int, line.split())) if found else 6)
