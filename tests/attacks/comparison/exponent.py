# problem: sum
# The right number in scientific notation, right to seven digits.
print(f"{sum(map(int, input().split())):e}")
