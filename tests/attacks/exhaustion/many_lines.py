import os

os.write(1, b"1\n2 " * 1_000_000)
