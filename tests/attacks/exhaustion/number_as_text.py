import sys

sys.set_int_max_str_digits(0)
print(7**12_000_000)
