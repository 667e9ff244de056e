# problem: sum
# Right only if a daemon thread still runs when the program has ended.
import threading
import time


def late():
    line = input()
    time.sleep(0.5)
    print(sum(map(int, line.split())), flush=True)


threading.Thread(target=late, daemon=True).start()
