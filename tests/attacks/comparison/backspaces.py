print("7\b", sum(map(int, input().split())), sep="")
