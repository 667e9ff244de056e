# problem: mean
# NaN, and differences from it.
print("NaN")
