print(
    "".join(
        chr(ord(digit) + 0x630) if digit.isdigit() else digit
        for digit in str(sum(map(int, input().split())))
    )
)
