kept = []
for _ in range(1536):
    kept.append(b"x" * (1 << 20))
print(sum(map(int, input().split())))
