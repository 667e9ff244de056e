import os
import time

line = input()
for _ in range(6):
    if os.fork() == 0:
        kept = bytearray(b"x") * (200 << 20)
        time.sleep(1)
        os._exit(len(kept) & 1)
for _ in range(6):
    os.wait()
print(sum(map(int, line.split())))
