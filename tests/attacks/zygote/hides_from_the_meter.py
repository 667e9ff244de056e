import ctypes
import os
import time

PR_SET_DUMPABLE = 4
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
children = []
for _ in range(4):
    if (child := os.fork()) == 0:
        end = time.process_time() + 4.0
        while time.process_time() < end:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
print(sum(map(int, input().split())))
