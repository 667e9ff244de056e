# problem: split
# Two numbers with the right sum, one of them zero, which the task forbids.
print(0, int(input()))
