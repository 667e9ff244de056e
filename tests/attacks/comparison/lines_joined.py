# problem: names
# All the right words, on one line.
print(*sorted(input() for _ in range(int(input()))))
