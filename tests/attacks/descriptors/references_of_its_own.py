class Endless:
    @property
    def value(self):
        return [Endless() for _ in range(1000)]


def twice(x):
    return [Endless() for _ in range(10_000)]
