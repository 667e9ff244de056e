import os

won = False
for path in (
    "/inside/warm_interpreter.py",
    os.__file__,
    "/usr/bin/env",
    "/proc/self/status",
    "/dev/null",
    "/dev/shm",
):
    try:
        os.link(path, "attacker")
        won = True
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
