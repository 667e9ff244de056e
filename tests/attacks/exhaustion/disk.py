block = b"x" * (1 << 20)
for number in range(6):
    with open(f"attacker{number}", "wb") as file:
        for _ in range(50):
            file.write(block)
print(sum(map(int, input().split())))
