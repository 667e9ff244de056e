# problem: add
# The right number, as a float, which has too few digits for large ones.
def add(a, b):
    return float(a) + float(b)
