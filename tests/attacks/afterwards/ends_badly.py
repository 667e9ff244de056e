import atexit
import os
import signal

print(sum(map(int, input().split())), flush=True)
atexit.register(os.kill, os.getpid(), signal.SIGKILL)
