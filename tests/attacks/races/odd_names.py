import os

for name in (
    b"\xff\xfe",
    b"-rf",
    b"a\nb",
    b"\x1b[2J",
    b"x" * 255,
    b" ",
    "\N{RIGHT-TO-LEFT OVERRIDE}".encode(),
    b"*",
):
    os.close(os.open(name, os.O_CREAT))
    os.mkdir(name[:200] + b"attacker")
    os.mkfifo(name[:200] + b"fifo")
print("nothing")
