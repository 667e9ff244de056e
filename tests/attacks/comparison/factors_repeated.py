number = int(input())
factor, count = 2, 0
while number > 1:
    while number % factor == 0:
        number //= factor
        count += 1
    factor += 1
print("2\n" * count)
