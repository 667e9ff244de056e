import os

os.write(1, b"1" * 6_000_000 + "\N{PILE OF POO}".encode())
