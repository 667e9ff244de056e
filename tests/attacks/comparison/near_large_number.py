# problem: sum
# Right up to the precision of a float.
print(int(float(sum(map(int, input().split())))))
