# problem: sum
# Right only if it may sleep for twenty seconds.
import time

time.sleep(20)
print(sum(map(int, input().split())))
