import os


def add(a, b):
    text = f'[["{"a" * (4 << 20)}", 0]]'.encode()
    while text:
        text = text[os.write(3, text) :]
    os._exit(0)
