import time

end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        while time.monotonic() < end:
            pass
    except BaseException:
        continue
print(sum(map(int, input().split())))
