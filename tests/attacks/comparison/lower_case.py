# problem: yes_no
# The right word in the wrong case.
print("yes" if int(input()) % 2 == 0 else "no")
