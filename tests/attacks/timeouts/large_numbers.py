def add(a, b):
    return 3**40_000_000 % 10**9 + a + b
