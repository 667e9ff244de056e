import ctypes

libc = ctypes.CDLL(None)
for _ in range(300):
    libc.inotify_init1(0)
for _ in range(300):
    libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p()))
print("nothing")
