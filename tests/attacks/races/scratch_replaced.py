import os

here = os.getcwd()
won = False
for step in (
    lambda: os.rename(here, here + "-attacker"),
    lambda: os.rmdir(here),
    lambda: os.symlink("/usr", here),
    lambda: os.rename(here, os.path.join(os.path.dirname(here), "attacker")),
):
    try:
        step()
        won = True
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
