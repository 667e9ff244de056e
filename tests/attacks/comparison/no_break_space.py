print("\u00a0", sum(map(int, input().split())), "\u3000", sep="")
