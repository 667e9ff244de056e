def roots(a, b, c):
    return [float("nan")] * 2
