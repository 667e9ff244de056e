# problem: split
# Twenty million characters where a checker expects two numbers.
print("1" * 20_000_000, 1)
