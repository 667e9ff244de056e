# problem: yes_no
# A regular expression that backtracks for a minute or so and never returns to Python.
import re

print("YES" if re.match(r"(a+)+$", "a" * 30 + "b") else "NO")
