import threading
import time


def spin():
    while time.thread_time() < 0.04:
        pass


for _ in range(60):
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
print(sum(map(int, input().split())))
