class Odd(SyntaxError):
    def __init__(self, *arguments):
        super().__init__("invalid", ("file", "one", "two", b"three"))


def twice(n):
    raise ExceptionGroup("odd", [Odd()])
