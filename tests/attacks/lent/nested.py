# problem: lent
# Gives the name to a function of an inner scope only: at the top it is still the one the imports brought along.
def solution():
    def add(a, b):
        return 77

    return add
