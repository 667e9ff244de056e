def weights(n):
    return [None, {}]


def total(numbers):
    return 0
