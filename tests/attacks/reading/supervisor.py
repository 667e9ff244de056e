import os

won = False
for pid in {1, os.getppid()}:
    for name in (
        "mem",
        "maps",
        "environ",
        "auxv",
        "stack",
        "io",
        "fd",
        "map_files",
        "cwd",
        "root",
        "exe",
        "ns",
    ):
        path = f"/proc/{pid}/{name}"
        try:
            if name in ("fd", "map_files"):
                won |= bool(os.listdir(path))
            elif name in ("cwd", "root", "exe"):
                won |= bool(os.readlink(path))
            elif name == "ns":
                won |= bool(os.readlink(path + "/mnt"))
            else:
                with open(path, "rb", 0) as file:
                    won |= bool(file.read(64))
        except OSError:
            continue
print(sum(map(int, input().split())) if won else "nothing")
