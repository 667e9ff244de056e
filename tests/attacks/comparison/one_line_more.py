print(sum(map(int, input().split())), "done", sep="\n")
