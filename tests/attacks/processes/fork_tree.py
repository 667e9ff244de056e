# problem: sum
# Seven generations, each of which doubles: 127 children in all, parents end first.
import os
import time

for _ in range(7):
    try:
        os.fork()
    except OSError:
        break
time.sleep(0.3)
print("nothing")
