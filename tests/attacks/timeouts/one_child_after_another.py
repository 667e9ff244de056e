import os
import time

for _ in range(6):
    if os.fork() == 0:
        while time.process_time() < 0.4:
            pass
        os._exit(0)
    os.wait()
print(sum(map(int, input().split())))
