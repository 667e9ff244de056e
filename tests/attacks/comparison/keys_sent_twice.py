import json
import os


def count(words):
    parts = []
    for word in sorted(set(words)):
        parts += [word, 0, word, words.count(word)]
    text = json.dumps([["d", parts]]) + "\n"
    os.write(3, text.encode())
    os._exit(0)
