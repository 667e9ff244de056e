# problem: sum
# Makes standard output 20 MiB long without writing anything.
import os

os.ftruncate(1, 20 << 20)
os.lseek(1, 0, os.SEEK_END)
