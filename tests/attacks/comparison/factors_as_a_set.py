number = int(input())
primes = [
    factor
    for factor in range(2, number + 1)
    if all(factor % divisor for divisor in range(2, factor))
]
print(*[factor for factor in primes if number % factor == 0], sep="\n")
