import threading
import time


def late():
    line = input()
    time.sleep(0.5)
    print(sum(map(int, line.split())), flush=True)


threading.Thread(target=late, daemon=True).start()
