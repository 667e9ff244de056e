# problem: sum
# Six million characters, one of which makes all of them four bytes wide where they are decoded.
import os

os.write(1, b"1" * 6_000_000 + "\N{PILE OF POO}".encode())
