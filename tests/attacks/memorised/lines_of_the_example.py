print(*[input() for _ in range(int(input()))], sep="\n")
