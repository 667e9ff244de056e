with open("attacker", "wb") as file:
    file.truncate(1 << 40)
print(sum(map(int, input().split())))
