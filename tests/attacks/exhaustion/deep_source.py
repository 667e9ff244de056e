for text in (
    "(" * 100_000,
    "-" * 100_000 + "1",
    "x" + ".y" * 100_000,
    "[" * 90 + "1" + "]" * 90,
    "if 1:\n " * 3,
):
    try:
        compile(text, "deep.py", "exec")
    except (SyntaxError, RecursionError, MemoryError):
        continue
print("nothing")
