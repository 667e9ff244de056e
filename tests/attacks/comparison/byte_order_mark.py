print("\ufeff", sum(map(int, input().split())), sep="")
