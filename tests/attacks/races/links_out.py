import os

for number, target in enumerate(
    ("/proc", "/usr", "/", "..", ".", "/proc/self/root", "attacker6", "\n", "/dev/fd/3")
):
    os.symlink(target, f"attacker{number}")
print("nothing")
