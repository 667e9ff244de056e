# problem: add
# The right number, as a text.
def add(a, b):
    return str(a + b)
