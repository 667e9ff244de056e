# problem: twice
# Answers with an object that holds itself, by reference, as often as is asked.
class Endless:
    @property
    def value(self):
        return [Endless() for _ in range(1000)]


def twice(x):
    return [Endless() for _ in range(10_000)]
