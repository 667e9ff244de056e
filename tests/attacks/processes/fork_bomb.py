import os
import time

for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
    except OSError:
        continue
print("nothing")
