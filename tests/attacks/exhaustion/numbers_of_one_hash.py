# Decimals that differ by multiples of 2**61 - 1 have equal hashes.
print(*(number * (2**61 - 1) for number in range(400_000)), sep="\n")
