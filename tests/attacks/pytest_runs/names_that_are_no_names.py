import itertools


class Stack:
    def __init__(self, items):
        self.items = list(items)

    def pop(self):
        return self.items.pop()


def root(n):
    if n < 0:
        raise ValueError("negative")
    return n**0.5


__all__ = itertools.repeat("twice")


def twice(n):
    return 2
