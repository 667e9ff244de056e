def roots(a, b, c):
    root = (b * b - 4 * a * c) ** 0.5
    return [(-b - root) / (2 * a), (-b + root) / (2 * a), 0.0]
