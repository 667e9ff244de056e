import threading
import time
import zlib

end = time.monotonic() + 20
block = bytes(4 << 20)


def spin():
    while time.monotonic() < end:
        zlib.crc32(block)


threads = [threading.Thread(target=spin) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(map(int, input().split())))
