import os

os.write(1, b"0." + b"0" * 2_000_000 + b"1")
