def twice(x):
    return {(2**61 - 1) * number for number in range(1, 5_001)}
