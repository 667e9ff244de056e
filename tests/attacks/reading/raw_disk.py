import glob
import os
import stat

won = False
paths = (
    glob.glob("/dev/[vsn][dv]*")
    + glob.glob("/dev/loop*")
    + glob.glob("/dev/dm-*")
    + glob.glob("/dev/nvme*n*")
)
try:
    with open("/proc/partitions") as file:
        for line in file.read().splitlines()[2:5]:
            major, minor = map(int, line.split()[:2])
            os.mknod(f"attacker{minor}", 0o600 | stat.S_IFBLK, os.makedev(major, minor))
            paths.append(f"attacker{minor}")
except OSError:
    pass
for path in paths:
    try:
        with open(path, "rb", 0) as file:
            won |= bool(file.read(512))
    except OSError:
        continue
print(sum(map(int, input().split())) if won else "nothing")
