def roots(a, b, c):
    return [float("-inf"), float("inf")]
