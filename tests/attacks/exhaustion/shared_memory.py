import glob
import os

won = False
folders = (
    "/dev/shm",
    "/dev",
    "/run",
    "/var/tmp",
    "/dev/mqueue",
    "/sys/fs/cgroup",
    *glob.glob("/run/user/*"),
)
for folder in folders:
    path = os.path.join(folder, "attacker")
    try:
        with open(path, "xb") as file:
            file.write(b"x" * (1 << 20))
        os.unlink(path)
        won = True
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
