import glob

won = False
for path in glob.glob("/dev/shm/*") + glob.glob("/dev/mqueue/*"):
    try:
        with open(path, "rb", 0) as file:
            file.read(1)
            won = True
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
