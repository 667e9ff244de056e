import sys


class Deep:
    def __getattr__(self, name):
        return getattr(self, name + "x")

    def __repr__(self):
        return repr([self])


def add(a, b):
    sys.setrecursionlimit(1_000_000)
    return repr(Deep())
