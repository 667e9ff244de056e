# problem: sum
# Prints nothing at all.
