import os

print(6 if os.getpid() <= 2 else "nothing")
