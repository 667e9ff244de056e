import os

for _ in range(5000):
    os.open("/dev/null", os.O_RDONLY)
print(sum(map(int, input().split())))
