# problem: add
# The right number in a list of its own.
def add(a, b):
    return [a + b]
