import time

time.sleep(20)
print(sum(map(int, input().split())))
