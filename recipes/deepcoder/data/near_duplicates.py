"""Which texts are the same problem: exactly, after normalisation, or nearly, by MinHash and LSH
(datasketch).

A text is a list of words (NFKC, case folded, punctuation left out); near is Jaccard similarity of
its shingles, runs of ``words`` words. What many texts of a group have in common, whole lines and
shingles of instructions, is left aside.

Invariants:
* LSH only proposes: every pair is confirmed by the true Jaccard similarity of its shingles. It
  misses a pair that is just at the threshold once in a hundred times, a more similar one more
  rarely.
* Two problems whose tests expect different outputs for one input are not twins, however alike their
  texts, unless these are equal with their punctuation.
* The outcome depends on the order of what is added and asked, on nothing else.
"""

import ast
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy
from datasketch import MinHash, MinHashLSH

from verl_pipeline.grading import AssertTest, CallTest, Problem

# Texts of a group that are looked at to learn what its texts have in common.
SAMPLE = 2000
# What is common to more texts than both this number and this share of a group is instruction, not
# problem.
COMMON_NUMBER, COMMON_SHARE = 20, 0.1
# Share of the pairs at the threshold that LSH may fail to propose: one missed is lost, one too many
# only looked at.
MOST_MISSED = 0.01
# Tests of a problem that are compared: those with the smallest hashes of their inputs, so of twins
# the same ones.
COMPARED = 64

Shingles = numpy.ndarray  # sorted 64-bit hashes, each once


@dataclass(frozen=True)
class Sketch:
    """What is compared of a problem.

    Attributes:
        key: its id.
        texts: hashes of its words: all, without common lines around it, without any common line.
        verbatim: hash of its text, but for white space and case.
        shingles: without common ones.
        tests: hash of input to hash of expected output.
    """

    key: str
    texts: frozenset[int]
    verbatim: int
    shingles: Shingles
    tests: Mapping[int, int]


@dataclass(frozen=True)
class Twin:
    """What a text is a twin of, and how: ``exact`` or ``near``."""

    key: str
    kind: str
    similarity: float


class Group:
    """What texts of one origin have in common, learnt from a sample of them.

    Args:
        texts: each different text once.
        words: in a shingle.
    """

    def __init__(self, texts: Sequence[str], words: int):
        self.words = words
        step = max(1, len(texts) // SAMPLE)
        sample = texts[::step]
        limit = max(COMMON_NUMBER, COMMON_SHARE * len(sample))
        lines = Counter(
            line for text in sample for line in {_folded(line) for line in text.splitlines()}
        )
        self._lines = {line for line, count in lines.items() if line and count > limit}
        shingles = Counter(
            int(one) for text in sample for one in shingles_of(self._own_words(text), words)
        )
        common = sorted(one for one, count in shingles.items() if count > limit)
        self._shingles = numpy.array(common, dtype=numpy.uint64)

    def sketch(self, key: str, text: str, problem: Problem | None) -> Sketch:
        """Of one text of the group."""
        own, asked = self._own_words(text), self._without_frame(text)
        shingles = numpy.setdiff1d(shingles_of(own, self.words), self._shingles, assume_unique=True)
        texts = frozenset(_hash(" ".join(words)) for words in (words_of(text), asked, own) if words)
        tests = tests_of(problem) if problem else {}
        return Sketch(key, texts, _hash(" ".join(_folded(text).split())), shingles, tests)

    def _without_frame(self, text: str) -> list[str]:
        """Words without the common lines that it begins and ends with."""
        lines = text.splitlines()
        own = [
            number
            for number, line in enumerate(lines)
            if line.strip() and _folded(line) not in self._lines
        ]
        return words_of("\n".join(lines[own[0] : own[-1] + 1])) if own else []

    def _own_words(self, text: str) -> list[str]:
        """Words of the lines that are not common, and no asserts."""
        lines = (line for line in text.splitlines() if _folded(line) not in self._lines)
        return words_of(
            "\n".join(line for line in lines if not line.lstrip().startswith("assert "))
        )


class Index:
    """Texts, to be asked for the twin of another.

    Args:
        threshold: Jaccard similarity from which a text is near.
        agreeing: the same, where at least half of the tests compared are the same.
        permutations: of MinHash.
    """

    def __init__(self, threshold: float, agreeing: float, permutations: int = 128):
        self._threshold, self._agreeing, self._permutations = threshold, agreeing, permutations
        bands = bands_of(min(threshold, agreeing), permutations)
        self._lsh = MinHashLSH(num_perm=permutations, params=bands)
        self._sketches: list[Sketch] = []
        self._exact: dict[int, list[int]] = {}

    def add(self, sketch: Sketch) -> None:
        number = len(self._sketches)
        self._sketches.append(sketch)
        for text in sketch.texts:
            self._exact.setdefault(text, []).append(number)
        if len(sketch.shingles):
            self._lsh.insert(number, self._minhash(sketch))

    def twin(self, sketch: Sketch) -> Twin | None:
        """The first exact twin, else the most similar near one; None: neither."""
        for number in sorted(
            {number for text in sketch.texts for number in self._exact.get(text, ())}
        ):
            other = self._sketches[number]
            if (
                sketch.verbatim == other.verbatim
                or agreement(sketch.tests, other.tests) is not False
            ):
                return Twin(other.key, "exact", 1.0)
        if not len(sketch.shingles):
            return None
        best: Twin | None = None
        for number in sorted(self._lsh.query(self._minhash(sketch))):
            other = self._sketches[number]
            similarity = jaccard(sketch.shingles, other.shingles)
            agree = agreement(sketch.tests, other.tests)
            enough = agree is not False and similarity >= (
                self._agreeing if agree else self._threshold
            )
            if enough and (best is None or similarity > best.similarity):
                best = Twin(other.key, "near", similarity)
        return best

    def _minhash(self, sketch: Sketch) -> MinHash:
        minhash = MinHash(self._permutations, seed=1, hashfunc=_lower_half)
        minhash.update_batch(sketch.shingles.tolist())
        return minhash


def bands_of(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands of LSH and rows in each: as many rows as leave at most :data:`MOST_MISSED` unseen.

    A pair of similarity s shares no band with probability ``(1 - s ** rows) ** bands``.
    """
    for rows in range(permutations // 2, 1, -1):
        bands = permutations // rows
        if (1 - threshold**rows) ** bands <= MOST_MISSED:
            return bands, rows
    return permutations, 1


def words_of(text: str) -> list[str]:
    """Normalised: NFKC, case folded, without punctuation and white space."""
    return re.findall(r"\w+", _folded(text))


def shingles_of(words: Sequence[str], length: int) -> Shingles:
    """Hashes of all runs of ``length`` words; of fewer words, of the whole; sorted, each once."""
    if not words:
        return numpy.array([], dtype=numpy.uint64)
    runs = (" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1)))
    return numpy.unique(numpy.fromiter(map(_hash, runs), dtype=numpy.uint64))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Similarity of two sets, from 0 to 1."""
    common = len(numpy.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def agreement(one: Mapping[int, int], other: Mapping[int, int]) -> bool | None:
    """Whether at least half of the tests are the same; False: one contradicts; None: they say
    nothing.
    """
    shared = one.keys() & other.keys()
    if any(one[key] != other[key] for key in shared):
        return False
    return True if shared and 2 * len(shared) >= min(len(one), len(other)) else None


def tests_of(problem: Problem) -> dict[int, int]:
    """Hashes of inputs to hashes of expected outputs; of asserts, those that compare with ``==``."""
    pairs = (pair for test in problem.tests for pair in _pairs(test))
    hashed = ((_hash(given), _hash(wanted)) for given, wanted in pairs)
    return dict(sorted(hashed)[:COMPARED])


def _pairs(test: object) -> Iterable[tuple[str, str]]:
    if isinstance(test, AssertTest):
        for node in ast.walk(ast.parse(test.source)):
            match node:
                case ast.Assert(
                    test=ast.Compare(left=ast.Call() as call, ops=[ast.Eq()], comparators=[wanted])
                ):
                    yield (
                        ", ".join(ast.unparse(part) for part in (*call.args, *call.keywords)),
                        ast.unparse(wanted),
                    )
    elif isinstance(test, CallTest):
        yield ", ".join(map(repr, test.args)), repr(test.output)
    else:
        yield " ".join(test.input.split()), " ".join(test.output.split())  # type: ignore[attr-defined]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _hash(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def _lower_half(value: int) -> int:
    """Of a 64-bit hash: what MinHash permutes has 32 bits."""
    return value & 0xFFFFFFFF
