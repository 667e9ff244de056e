import importlib.util
import os

won = False
for name in ("json", "heapq", "bisect", "program_runner"):
    spec = importlib.util.find_spec(name)
    path = spec.cached if spec else f"/inside/__pycache__/{name}.cpython-311.pyc"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path + ".attacker", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(path + ".attacker")
        won = True
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
