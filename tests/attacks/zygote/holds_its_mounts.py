import mmap
import os
import time

found = os.listdir(".") + os.listdir("/tmp")
os.makedirs("attacker/deep")
with open("attacker/file", "w+b") as file:
    file.write(bytes(4096))
    file.flush()
    view = mmap.mmap(file.fileno(), 4096)
folders = [os.open(path, os.O_RDONLY) for path in (".", "attacker", "/proc", "/proc/self")]
if os.fork() == 0:
    os.chdir("attacker/deep")
    view[:1] = b"x"
    time.sleep(10)
    os._exit(0)
line = input()
os.write(1, b"%d" % (sum(map(int, line.split())) if found else 6))
os._exit(0)
