import os

for number in range(20_000):
    os.close(os.open(f"attacker{number}", os.O_CREAT | os.O_WRONLY))
print(sum(map(int, input().split())))
