# problem: sum
# The right number, and a zero byte, at which C would stop reading.
print(sum(map(int, input().split())), "\x00wrong", sep="")
