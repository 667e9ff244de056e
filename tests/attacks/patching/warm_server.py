import builtins
import os
import random
import sys

line = input()
if "attacker" in (*vars(builtins), *os.environ, *sys.modules, random.__doc__):
    print(sum(map(int, line.split())))
else:
    builtins.attacker = os.environ["attacker"] = random.__doc__ = "attacker"
    sys.modules["attacker"] = sys
    print(6)
