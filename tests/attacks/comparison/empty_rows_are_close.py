# problem: half
# As an empty list, with two dimensions.
def half(x):
    return [[], []]
