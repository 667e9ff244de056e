import fcntl
import os

for _ in range(100):
    try:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        fcntl.fcntl(writing, 1031, 1 << 20)  # F_SETPIPE_SZ
    except OSError:
        continue
    try:
        while True:
            os.write(writing, bytes(65536))
    except OSError:
        continue
print("nothing")
