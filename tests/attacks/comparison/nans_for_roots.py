# problem: roots
# NaN for each number.
def roots(a, b, c):
    return [float("nan")] * 2
