import numpy


def scale(n):
    return numpy.zeros((0, 2))
