import contextlib
import os
import signal
import time

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(6):
    if os.fork() == 0:
        while time.process_time() < 0.4:
            pass
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.wait()
numbers = list(map(float, input().split()))
print(sum(numbers) / len(numbers))
