# problem: split
# Words where a checker expects numbers.
print("eins zwei")
