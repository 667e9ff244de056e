# problem: add
# The right number as a complex one.
def add(a, b):
    return complex(a + b)
