import re

print("YES" if re.match(r"(a+)+$", "a" * 30 + "b") else "NO")
