import threading
import time


def late():
    time.sleep(0.2)
    print(6)


threading.Thread(target=late).start()
