print(sum(map(int, input().split())), "\x00wrong", sep="")
