# problem: twice
# Right only if the tests wait for twenty seconds.
import time


def twice(x):
    time.sleep(20)
    return 2 * x
