import os

for number in range(20):
    os.makedirs(f"attacker{number}/inner")
    os.chmod(f"attacker{number}/inner", 0)
    os.chmod(f"attacker{number}", 0)
os.chmod(".", 0)
print("nothing")
