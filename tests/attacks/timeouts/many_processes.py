import os
import time

end = time.monotonic() + 20
for _ in range(8):
    if os.fork() == 0:
        while time.monotonic() < end:
            pass
        os._exit(0)
for _ in range(8):
    os.wait()
print(sum(map(int, input().split())))
