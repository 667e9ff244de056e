import os

os.write(3, b"[" * 5000 + b"9" * 5000)
os._exit(0)
