import ctypes

won = ctypes.CDLL(None).syscall(425, 8, (ctypes.c_uint64 * 32)()) >= 0
print(sum(map(int, input().split())) if won else "nothing")
