import os
import signal

line = input()
signal.signal(signal.SIGALRM, lambda *_: os.write(1, str(sum(map(int, line.split()))).encode()))
signal.setitimer(signal.ITIMER_REAL, 0.3)
