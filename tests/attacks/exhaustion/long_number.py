import os

os.write(1, b"9" * 2_000_000)
