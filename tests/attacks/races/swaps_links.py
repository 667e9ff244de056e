import os
import time

os.mkdir("attacker")
os.symlink("/usr", "link")
if os.fork() == 0:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        os.rename("attacker", "other")
        os.rename("link", "attacker")
        os.rename("attacker", "link")
        os.rename("other", "attacker")
    os._exit(0)
time.sleep(0.1)
print("nothing")
