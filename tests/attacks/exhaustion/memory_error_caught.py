for _ in range(50):
    kept = []
    try:
        for _ in range(64):
            kept.append(bytes(32 << 20))
    except MemoryError:
        continue
print("nothing")
