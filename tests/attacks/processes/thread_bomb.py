import threading

stop = threading.Event()
threads = [threading.Thread(target=stop.wait, args=(10,), daemon=True) for _ in range(500)]
try:
    for thread in threads:
        thread.start()
    print(sum(map(int, input().split())))
except RuntimeError:
    print("nothing")
finally:
    stop.set()
