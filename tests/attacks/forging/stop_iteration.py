def square(x):
    raise StopIteration
