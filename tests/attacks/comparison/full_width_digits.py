print(
    "".join(
        chr(ord(digit) + 0xFEE0) if digit.isdigit() else digit
        for digit in str(sum(map(int, input().split())))
    )
)
