def twice(x):
    if type(x) is list:
        x.clear()
        return []
    return 2 * x
