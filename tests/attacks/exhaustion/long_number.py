# problem: mean
# A number of two million digits, where numbers may differ a little.
import os

os.write(1, b"9" * 2_000_000)
