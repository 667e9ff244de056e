# problem: yes_no
# Neither yes nor no.
input()
print("MAYBE")
