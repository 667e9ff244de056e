def twice(n):
    raise SyntaxError("invalid", ("file", 1, 1, 7))
