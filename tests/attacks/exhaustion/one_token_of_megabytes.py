import sys

sys.stdout.write("1" * (60 << 20) + "x")
