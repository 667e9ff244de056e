import os

won = False
for path in (
    "/inside/program_runner.py",
    "/inside/value_codec.py",
    os.__file__,
    "/packages/attacker.py",
    "/python/attacker.py",
):
    for way in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
        try:
            os.close(os.open(path, way))
            won = True
        except OSError:
            continue
print(sum(map(int, input().split())) if won else "nothing")
