numbers = list(map(float, input().split()))
print(sum(numbers) / len(numbers) * (1 + 2e-4))
