# problem: pair
# A dict where a checker expects a pair.
def pair(n):
    return {n: "x"}
