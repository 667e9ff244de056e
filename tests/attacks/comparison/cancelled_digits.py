def roots(a, b, c):
    root = (b * b - 4 * a * c) ** 0.5
    return sorted([(-b - root) / (2 * a), (-b + root) / (2 * a)])
