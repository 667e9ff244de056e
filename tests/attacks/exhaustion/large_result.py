def add(a, b):
    return list(range(2_000_000))
