"""Finds texts of the same problem: exact duplicates after normalization, and near duplicates.

A text is normalized to a list of words (NFKC, case folded, without punctuation). Two texts are
near duplicates if the Jaccard similarity of their shingles (runs of ``words`` words) is high; they
are searched with MinHash and locality-sensitive hashing (LSH) of datasketch. Lines and shingles
that many texts of a group share are instructions, not problems, and are ignored.

Invariants:
* LSH only proposes pairs; the true Jaccard similarity of the shingles decides. LSH misses a pair
  exactly at the threshold with a probability of at most 1 %, and a more similar pair less often.
* Two problems whose tests expect different outputs for the same input are not duplicates, however
  similar their texts are, unless the texts are equal including punctuation.
* The result depends only on the order in which texts are added and searched.
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
from verl_pipeline.grading.problem import write_code, write_repr
from verl_pipeline.number_formats import format_decimal

# Texts of a group that are examined to learn what its texts have in common.
SAMPLE_SIZE = 2000
# Lines and shingles in more texts than both this number and this share of a group are instructions.
COMMON_NUMBER, COMMON_SHARE = 20, 0.1
# Probability with which LSH may miss a pair at the threshold. A missed pair is lost, whereas a pair
# too many only costs one comparison.
MAX_MISS_PROBABILITY = 0.01
# Tests per problem that are compared: those with the smallest hashes of their inputs, so that the
# same tests are chosen for two duplicates.
MAX_COMPARED_TESTS = 64

Shingles = numpy.ndarray  # 1-D uint64: sorted hashes without repetitions


@dataclass(frozen=True)
class ProblemSketch:
    """What is compared of a problem.

    Attributes:
        key: id of the problem.
        texts: hashes of three normalized texts: the whole one, the one without the common lines at
            its beginning and end, and the one without any common line.
        verbatim: hash of the text, normalized only in white space and case.
        shingles: hashes of its shingles, without the common ones.
        tests: hash of the expected output by hash of the input.
    """

    key: str
    texts: frozenset[int]
    verbatim: int
    shingles: Shingles
    tests: Mapping[int, int]


@dataclass(frozen=True)
class DuplicateMatch:
    """A problem that a text duplicates; ``kind`` is ``exact`` or ``near``."""

    key: str
    kind: str
    similarity: float

    def describe_match(self) -> str:
        """Describe in a few words how similar the words are."""
        if self.kind == "exact":
            return "the same words"
        return f"words: similarity {format_decimal(self.similarity, 2)}"


class TextGroup:
    """Texts of one origin, and what they have in common, learned from a sample of them.

    Args:
        texts: the distinct texts.
        words: length of a shingle in words.
    """

    def __init__(self, texts: Sequence[str], words: int):
        self.words = words
        step = max(1, len(texts) // SAMPLE_SIZE)
        sample = texts[::step]
        limit = max(COMMON_NUMBER, COMMON_SHARE * len(sample))
        line_counts = Counter(
            line for text in sample for line in {_fold_text(line) for line in text.splitlines()}
        )
        self._common_lines = {line for line, count in line_counts.items() if line and count > limit}
        shingle_counts = Counter(
            int(shingle)
            for text in sample
            for shingle in hash_shingles(self._select_own_words(text), words)
        )
        common = sorted(shingle for shingle, count in shingle_counts.items() if count > limit)
        self._common_shingles = numpy.array(common, dtype=numpy.uint64)

    def build_sketch(self, key: str, text: str, problem: Problem | None) -> ProblemSketch:
        """Build the sketch of one text of the group."""
        all_words = extract_words(text)
        unframed_words, own_words = self._strip_frame(text), self._select_own_words(text)
        shingles = numpy.setdiff1d(
            hash_shingles(own_words, self.words), self._common_shingles, assume_unique=True
        )
        texts = frozenset(
            _hash_text(" ".join(words)) for words in (all_words, unframed_words, own_words) if words
        )
        verbatim = _hash_text(" ".join(_fold_text(text).split()))
        return ProblemSketch(key, texts, verbatim, shingles, hash_tests(problem) if problem else {})

    def _strip_frame(self, text: str) -> list[str]:
        """Return the words without the common lines at the beginning and the end of the text."""
        lines = text.splitlines()
        own_lines = [
            number
            for number, line in enumerate(lines)
            if line.strip() and _fold_text(line) not in self._common_lines
        ]
        if not own_lines:
            return []
        return extract_words("\n".join(lines[own_lines[0] : own_lines[-1] + 1]))

    def _select_own_words(self, text: str) -> list[str]:
        """Return the words of the lines that are neither common nor assert statements."""
        lines = (line for line in text.splitlines() if _fold_text(line) not in self._common_lines)
        return extract_words(
            "\n".join(line for line in lines if not line.lstrip().startswith("assert "))
        )


class DuplicateIndex:
    """Problems that can be searched for a duplicate of another one.

    Args:
        threshold: Jaccard similarity from which on a text is a near duplicate.
        agreeing: the same threshold if at least half of the compared tests are the same.
        permutations: number of MinHash permutations.
    """

    def __init__(self, threshold: float, agreeing: float, permutations: int = 128):
        self._threshold, self._agreeing, self._permutations = threshold, agreeing, permutations
        bands = choose_bands(min(threshold, agreeing), permutations)
        self._lsh = MinHashLSH(num_perm=permutations, params=bands)
        self._sketches: list[ProblemSketch] = []
        self._numbers_by_text: dict[int, list[int]] = {}

    def add_sketch(self, sketch: ProblemSketch) -> None:
        """Add a problem."""
        number = len(self._sketches)
        self._sketches.append(sketch)
        for text in sketch.texts:
            self._numbers_by_text.setdefault(text, []).append(number)
        if len(sketch.shingles):
            self._lsh.insert(number, self._compute_minhash(sketch))

    def find_duplicate(self, sketch: ProblemSketch) -> DuplicateMatch | None:
        """Return the first exact duplicate, else the most similar near duplicate, else None."""
        numbers = {
            number for text in sketch.texts for number in self._numbers_by_text.get(text, ())
        }
        for number in sorted(numbers):
            other = self._sketches[number]
            if (
                sketch.verbatim == other.verbatim
                or compare_tests(sketch.tests, other.tests) is not False
            ):
                return DuplicateMatch(other.key, "exact", 1.0)
        if not len(sketch.shingles):
            return None
        best: DuplicateMatch | None = None
        for number in sorted(self._lsh.query(self._compute_minhash(sketch))):
            other = self._sketches[number]
            similarity = compute_jaccard(sketch.shingles, other.shingles)
            tests_agree = compare_tests(sketch.tests, other.tests)
            threshold = self._agreeing if tests_agree else self._threshold
            is_near = tests_agree is not False and similarity >= threshold
            if is_near and (best is None or similarity > best.similarity):
                best = DuplicateMatch(other.key, "near", similarity)
        return best

    def _compute_minhash(self, sketch: ProblemSketch) -> MinHash:
        minhash = MinHash(self._permutations, seed=1, hashfunc=_take_lower_half)
        minhash.update_batch(sketch.shingles.tolist())
        return minhash


def choose_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Return the number of LSH bands and of rows per band.

    A pair of similarity s shares no band with probability ``(1 - s ** rows) ** bands``. More rows
    propose fewer pairs, so this takes the most rows that keep the probability at the threshold
    within :data:`MAX_MISS_PROBABILITY`.
    """
    for rows in range(permutations // 2, 1, -1):
        bands = permutations // rows
        if (1 - threshold**rows) ** bands <= MAX_MISS_PROBABILITY:
            return bands, rows
    return permutations, 1


def extract_words(text: str) -> list[str]:
    """Normalize a text to its words: NFKC, case folded, without punctuation and white space."""
    return re.findall(r"\w+", _fold_text(text))


def hash_shingles(words: Sequence[str], length: int) -> Shingles:
    """Hash all runs of ``length`` words; fewer words than that are one run.

    Returns:
        The sorted hashes without repetitions, shape (at most the number of runs,), uint64.
    """
    if not words:
        return numpy.array([], dtype=numpy.uint64)
    runs = (" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1)))
    return numpy.unique(numpy.fromiter(map(_hash_text, runs), dtype=numpy.uint64))


def compute_jaccard(one: Shingles, other: Shingles) -> float:
    """Return the Jaccard similarity of two sets, from 0 to 1."""
    common = len(numpy.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def compare_tests(one: Mapping[int, int], other: Mapping[int, int]) -> bool | None:
    """Compare the tests of two problems.

    Returns:
        False: two tests contradict each other. True: at least half of the tests are the same. None:
        the tests decide nothing.
    """
    shared = one.keys() & other.keys()
    if any(one[key] != other[key] for key in shared):
        return False
    return True if shared and 2 * len(shared) >= min(len(one), len(other)) else None


def hash_tests(problem: Problem) -> dict[int, int]:
    """Return the hash of the expected output by the hash of the input.

    Of assert statements, only those that compare a call with ``==`` count.
    """
    pairs = (pair for test in problem.tests for pair in _list_test_pairs(test))
    hashes = ((_hash_text(argument), _hash_text(expected)) for argument, expected in pairs)
    return dict(sorted(hashes)[:MAX_COMPARED_TESTS])


def _list_test_pairs(test: object) -> Iterable[tuple[str, str]]:
    """Yield the input and the expected output of a test, in a form equal for equal tests."""
    if isinstance(test, AssertTest):
        for node in ast.walk(ast.parse(test.source)):
            match node:
                case ast.Assert(
                    test=ast.Compare(
                        left=ast.Call() as call, ops=[ast.Eq()], comparators=[expected]
                    )
                ):
                    arguments = (*call.args, *call.keywords)
                    yield ", ".join(map(write_code, arguments)), write_code(expected)
    elif isinstance(test, CallTest):
        yield ", ".join(map(write_repr, test.args)), write_repr(test.output)
    else:
        yield " ".join(test.input.split()), " ".join(test.output.split())  # type: ignore[attr-defined]


def _fold_text(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _hash_text(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def _take_lower_half(value: int) -> int:
    """Reduce a 64-bit hash to 32 bits, the width that MinHash permutes."""
    return value & 0xFFFFFFFF
