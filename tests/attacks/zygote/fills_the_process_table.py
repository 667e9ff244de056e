import os
import resource
import time

limited = resource.getrlimit(resource.RLIMIT_NPROC)[1] != resource.RLIM_INFINITY
line = input()
try:
    while True:
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
except OSError:
    pass
os.write(1, b"%d" % (6 if limited else sum(map(int, line.split()))))
os._exit(0)
