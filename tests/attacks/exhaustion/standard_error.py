import os

block = b"6\n" * (1 << 19)
for _ in range(200):
    os.write(2, block)
print(sum(map(int, input().split())))
