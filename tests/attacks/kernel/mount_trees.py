import ctypes

attributes = (ctypes.c_uint64 * 4)()
won = ctypes.CDLL(None).syscall(467, -100, b"/usr", 1, attributes, 32) >= 0
print(sum(map(int, input().split())) if won else "nothing")
