print("\u200b".join(str(sum(map(int, input().split())))), end="\u200b\n")
