# problem: names
# The right lines with an empty one between each two.
print(*sorted(input() for _ in range(int(input()))), sep="\n\n")
