# problem: add
# Prints the right number and returns nothing.
def add(a, b):
    print(a + b)
