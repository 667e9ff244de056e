import os

os.write(3, b"[1]")
os._exit(0)
