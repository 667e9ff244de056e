# problem: sum
# Folders that their owner may neither list nor enter, with something in them.
import os

for number in range(20):
    os.makedirs(f"attacker{number}/inner")
    os.chmod(f"attacker{number}/inner", 0)
    os.chmod(f"attacker{number}", 0)
os.chmod(".", 0)
print("nothing")
