# problem: yes_no
# Knows the public input; guesses elsewhere.
print({"4": "YES"}.get(input().strip(), "YES"))
