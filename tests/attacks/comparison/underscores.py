# problem: sum
# The right number with underscores, which int() and Decimal() take.
print(f"{sum(map(int, input().split())):_}")
