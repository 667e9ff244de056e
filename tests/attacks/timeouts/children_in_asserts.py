import os
import time


def twice(x):
    if os.fork() == 0:
        while time.process_time() < 0.5:
            pass
        os._exit(0)
    os.wait()
    return x * 2
