def make_chain(n):
    chain = Chain()  # noqa: F821
    chain.has = lambda item: True
    return chain
