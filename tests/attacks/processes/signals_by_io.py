import fcntl
import os
import signal
import sys
import time

reading, writing = os.pipe()
if sys.argv == ["solution.py"]:
    try:
        fcntl.fcntl(reading, fcntl.F_SETOWN, os.getppid())
        fcntl.fcntl(reading, 10, signal.SIGINT)  # F_SETSIG
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    except OSError:
        pass
    for _ in range(20):
        os.write(writing, b"x")
        time.sleep(0.005)
print("nothing")
