# problem: sum
# Fails, and turns the failure into success by a function at exit.
import atexit
import os

atexit.register(os._exit, 0)
raise RuntimeError("wrong")
