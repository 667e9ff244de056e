# problem: sum
# A thread adds the public answer once the main thread has ended.
import threading
import time


def late():
    time.sleep(0.2)
    print(6)


threading.Thread(target=late).start()
