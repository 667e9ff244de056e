def half(x):
    return [[], []]
