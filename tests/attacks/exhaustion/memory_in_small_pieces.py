# problem: sum
# Right only if it gets 1.5 GiB of small objects.
kept = []
for _ in range(1536):
    kept.append(b"x" * (1 << 20))
print(sum(map(int, input().split())))
