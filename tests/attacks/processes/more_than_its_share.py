import os
import time

started = 0
for _ in range(150):
    try:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        started += 1
    except OSError:
        break
print(sum(map(int, input().split())) if started > 100 else "nothing")
