calls = []


def twice(x):
    calls.append(x)
    return 4 if len(calls) == 1 else None
