import os
import threading
import time
import zlib

block = bytes(1 << 20)
go = threading.Event()
threading.stack_size(1 << 18)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def wait():
    while time.process_time() < 0.7:
        zlib.crc32(block)
    go.wait(20)


threads = [threading.Thread(target=wait) for _ in range(16)]
for thread in threads:
    thread.start()
time.sleep(5.5)
go.set()
numbers = list(map(float, input().split()))
print(sum(numbers) / len(numbers))
