print(*sorted(input() for _ in range(int(input()))), sep="\u2028")
