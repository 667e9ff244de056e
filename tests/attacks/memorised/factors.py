# problem: factors
# Repeats the public answer, in another order.
print("3\n2\n2")
