class Scalar:
    ndim = 0

    def item(self):
        return Scalar()


Scalar.__module__ = "numpy"


def add(a, b):
    return Scalar()
