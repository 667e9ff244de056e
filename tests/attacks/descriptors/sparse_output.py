import os

os.ftruncate(1, 20 << 20)
os.lseek(1, 0, os.SEEK_END)
