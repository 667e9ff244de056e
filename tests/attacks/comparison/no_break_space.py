# problem: sum
# The right number among spaces that are none to a machine.
print("\u00a0", sum(map(int, input().split())), "\u3000", sep="")
