import numpy


def weights(n):
    return [1 / n] * n


def total(numbers):
    return 1.0


def Batch(n):
    return numpy.ones(n)
