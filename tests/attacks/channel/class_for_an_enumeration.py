LIMIT = 10


class Color:
    pass
