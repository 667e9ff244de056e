input()
print("MAYBE")
