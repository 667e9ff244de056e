# problem: add
# A list of two million members.
def add(a, b):
    return list(range(2_000_000))
