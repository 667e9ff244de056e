import numpy


def scale(n):
    return numpy.array([])
