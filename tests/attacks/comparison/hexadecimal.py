print(hex(sum(map(int, input().split()))))
