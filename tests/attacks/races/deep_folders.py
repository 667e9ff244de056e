import os

for _ in range(3000):
    os.mkdir("attacker")
    os.chdir("attacker")
print("nothing")
