# problem: sum; tier: namespaces
# Right only if it sees processes beside itself and process 1.
import os

others = [
    name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())
]
print(sum(map(int, input().split())) if others else "nothing")
