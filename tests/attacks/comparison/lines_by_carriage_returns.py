print(*sorted(input() for _ in range(int(input()))), sep="\r")
