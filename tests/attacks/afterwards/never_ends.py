import threading
import time


def spin():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass


print(sum(map(int, input().split())), flush=True)
threading.Thread(target=spin).start()
