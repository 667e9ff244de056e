import os

for _ in range(60):
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        break
print("nothing")
