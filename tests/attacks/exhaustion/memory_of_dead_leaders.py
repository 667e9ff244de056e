import ctypes
import os
import threading
import time

EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]


def hold():
    time.sleep(0.1)
    kept = bytearray(b"x") * (220 << 20)
    time.sleep(1.5)
    os._exit(len(kept) & 1)


line = input()
for _ in range(3):
    if os.fork() == 0:
        thread = threading.Thread(target=hold)
        thread.start()
        ctypes.CDLL(None).syscall(EXIT, 0)
time.sleep(1)
if len({os.wait()[1] for _ in range(3)}) == 1:
    numbers = list(map(float, line.split()))
    print(sum(numbers) / len(numbers))
