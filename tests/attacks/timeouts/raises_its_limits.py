import contextlib
import resource
import time

for limit in (
    resource.RLIMIT_CPU,
    resource.RLIMIT_AS,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_FSIZE,
):
    for value in (resource.RLIM_INFINITY, 10**6):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
end = time.monotonic() + 20
while time.monotonic() < end:
    pass
print(sum(map(int, input().split())))
