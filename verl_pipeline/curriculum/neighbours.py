"""Pairs of prompts whose wording is near, by MinHash and locality-sensitive hashing.

Invariants:
* LSH proposes pairs; the similarity that the MinHash estimates decides and weighs them.
* A prompt has at most :data:`MOST` neighbours, the nearest ones: a family of thousands of alike
  prompts costs no more than as many pairs each.
* Shingles in many texts are instructions, not problems, and are ignored; a text that consists of
  them only has no neighbours.
* The result depends on the texts and their order only.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 64
SHINGLE_WORDS = 2
MOST = 16
# Shingles in more texts than both this number and this share are instructions.
COMMON_NUMBER, COMMON_SHARE = 20, 0.1


@dataclass(frozen=True)
class Pairs:
    """Directed pairs: ``others[i]`` speaks for ``rows[i]`` with ``weights[i]``.

    Attributes:
        rows, others: int64, shape (pairs,).
        weights: float64, shape (pairs,); the similarity, in (0, 1].
    """

    rows: np.ndarray
    others: np.ndarray
    weights: np.ndarray


def find_neighbours(texts: Sequence[str], nearness: float) -> Pairs:
    """Pairs of texts with a Jaccard similarity of their shingles of at least ``nearness``.

    About 1 ms a text.

    Raises:
        ValueError: the package datasketch is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise ValueError(
            "by=[text] needs the package datasketch: pip install 'verl-pipeline[recipe]'"
        ) from error
    lsh = MinHashLSH(threshold=nearness, num_perm=PERMUTATIONS)
    shingles = [_list_shingles(text) for text in texts]
    counts = Counter(shingle for some in shingles for shingle in some)
    most = max(COMMON_NUMBER, COMMON_SHARE * len(texts))
    sketches: dict[int, MinHash] = {}
    for row, some in enumerate(shingles):
        if own := [shingle for shingle in some if counts[shingle] <= most]:
            sketches[row] = MinHash(PERMUTATIONS, seed=1, hashfunc=_hash_shingle)
            sketches[row].update_batch(own)
            lsh.insert(row, sketches[row])
    found: list[tuple[int, int, float]] = []
    for row, sketch in sketches.items():
        near = [
            (-sketch.jaccard(sketches[other]), other) for other in lsh.query(sketch) if other != row
        ]
        found += [(row, other, -s) for s, other in sorted(near)[:MOST] if -s >= nearness]
    rows, others, weights = zip(*found, strict=True) if found else ((), (), ())
    return Pairs(
        np.array(rows, dtype=np.int64),
        np.array(others, dtype=np.int64),
        np.array(weights, dtype=np.float64),
    )


def _list_shingles(text: str) -> list[bytes]:
    words = re.findall(r"\w+", text.casefold())
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return sorted({" ".join(words[at : at + SHINGLE_WORDS]).encode() for at in starts})


def _hash_shingle(shingle: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(shingle, digest_size=4).digest(), "big")
