def add(a, b):
    return "\N{PILE OF POO}" * 5_000_000
