with open("/proc/self/status") as file:
    fields = dict(line.split(":", 1) for line in file)
won = any(int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
print(sum(map(int, input().split())) if won else "nothing")
