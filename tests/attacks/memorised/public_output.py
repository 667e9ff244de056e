# problem: sum
# Prints the public test's answer.
print(6)
