import unicodedata

print(
    *[unicodedata.normalize("NFD", name) for name in sorted(input() for _ in range(int(input())))],
    sep="\n",
)
