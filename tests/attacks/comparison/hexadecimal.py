# problem: sum
# The right number to another base.
print(hex(sum(map(int, input().split()))))
