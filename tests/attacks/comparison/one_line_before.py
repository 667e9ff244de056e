# problem: sum
# A prompt, then the right answer.
line = input("numbers? ")
print(sum(map(int, line.split())))
