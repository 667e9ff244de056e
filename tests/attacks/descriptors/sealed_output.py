import fcntl
import os

fcntl.fcntl(1, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
os.write(1, b"6")
