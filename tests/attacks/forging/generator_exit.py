calls = 0


def square(x):
    global calls
    calls += 1
    raise (GeneratorExit, StopAsyncIteration, IndexError, KeyboardInterrupt)[calls % 4]
