def fill(gauge, item):
    type(gauge).level = 5
