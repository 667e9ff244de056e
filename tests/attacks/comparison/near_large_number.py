print(int(float(sum(map(int, input().split())))))
