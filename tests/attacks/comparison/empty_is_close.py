def half(x):
    return []
