import unittest

from _pytest import outcomes


class Stack:
    def __init__(self, items):
        self.items = list(items)

    def pop(self):
        return self.items.pop()


def root(n):
    if n < 0:
        raise ValueError("negative")
    return n**0.5


class Both(ValueError, unittest.SkipTest):
    pass


class Skip(outcomes.Skipped):
    pass


def twice(n):
    if n == 1:
        return 2
    raise Both("a") if n == 5 else Skip("b")
