# problem: yes_no
# Prints white space only.
print(" \t\r\n\x0b\x0c\n")
