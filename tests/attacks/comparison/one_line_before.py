line = input("numbers? ")
print(sum(map(int, line.split())))
