print(*sorted((input() for _ in range(int(input()))), reverse=True), sep="\n")
