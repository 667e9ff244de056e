import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with open("attacker", "a") as file:
                file.write("here\n")
            time.sleep(0.01)
    os._exit(0)
os.wait()
print("nothing")
