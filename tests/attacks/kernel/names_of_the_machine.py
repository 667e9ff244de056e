import ctypes
import os

won = os.path.isdir("/inside") and ctypes.CDLL(None).sethostname(b"attacker", 8) == 0
print(sum(map(int, input().split())) if won else "nothing")
