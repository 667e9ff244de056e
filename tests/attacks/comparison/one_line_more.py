# problem: sum
# The right answer and a word on the next line.
print(sum(map(int, input().split())), "done", sep="\n")
