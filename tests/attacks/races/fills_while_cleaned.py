import os
import time

for child in range(4):
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + 10
        number = 0
        while time.monotonic() < end and number < 100_000:
            number += 1
            try:
                os.makedirs(f"attacker{child}/{number}")
                os.rename(f"attacker{child}", f"attacker{child}-{number}")
            except OSError:
                continue
        os._exit(0)
time.sleep(0.1)
print("nothing")
