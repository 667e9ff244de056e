import itertools


def count(words):
    # hash(-1) == hash(-2): members of one hash, alike up to their last ten parts.
    head = (frozenset((1, 2)),) * 100
    tails = itertools.islice(itertools.product((-1, -2), repeat=10), 500)
    return {head + tail: 1 for tail in tails}
