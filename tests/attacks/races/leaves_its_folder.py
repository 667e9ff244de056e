import mmap
import os
import time

with open("attacker", "w+b") as file:
    file.truncate(1 << 20)
    memory = mmap.mmap(file.fileno(), 1 << 20)
for _ in range(5):
    if os.fork() == 0:
        folder = os.open(".", os.O_RDONLY)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            memory[:4] = b"here"
            os.fchdir(folder)
        os._exit(0)
os.chdir("/")
print("nothing")
