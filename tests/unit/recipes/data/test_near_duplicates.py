"""Which texts count as the same problem, and that no clean problem does."""

import json
import os
import random
from pathlib import Path

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers.problem_mixture import make_story
from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.grading.readers import READERS
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.deduplication import group_texts
from verl_pipeline.recipes.deepcoder.data.ingestion import ingest_rows, locate_files
from verl_pipeline.recipes.deepcoder.data.near_duplicates import (
    DuplicateIndex,
    TextGroup,
    choose_bands,
    compare_tests,
    compute_jaccard,
    extract_words,
    hash_shingles,
    hash_tests,
)
from verl_pipeline.recipes.deepcoder.data.preparation_config import NearConfig, SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord

DATA = Path(
    os.environ.get("VERL_PIPELINE_DATA", Path(__file__).parents[4].parent / "shared" / "data")
)
word_lists = st.lists(
    st.sampled_from("alpha beta gamma delta epsilon zeta eta theta".split()), max_size=40
)


@settings(deadline=None)
@given(word_lists, word_lists, st.integers(1, 6))
def test_jaccard_is_that_of_the_sets_of_runs(one, other, length):
    def list_runs(words):
        if not words:
            return set()
        return {tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}

    left, right = list_runs(one), list_runs(other)
    if left | right:
        similarity = compute_jaccard(hash_shingles(one, length), hash_shingles(other, length))
        assert similarity == pytest.approx(len(left & right) / len(left | right))


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii")))
def test_normalization_ignores_case_punctuation_and_white_space(text):
    decorated = "  ".join(f"{word.upper()}!" for word in extract_words(text))
    assert extract_words(decorated) == extract_words(" ".join(extract_words(text)))


def build_sketches(texts):
    group = TextGroup(texts, 5)
    return [group.build_sketch(str(number), text, None) for number, text in enumerate(texts)]


@given(st.floats(0.3, 0.95), st.sampled_from([64, 128, 256]))
def test_a_pair_at_the_threshold_is_rarely_missed(threshold, permutations):
    bands, rows = choose_bands(threshold, permutations)
    assert bands * rows <= permutations and bands > 1
    assert (1 - threshold**rows) ** bands <= 0.01


@settings(deadline=None, max_examples=30)
@example(4739)
@given(st.integers(0, 10**6))
def test_a_text_with_two_other_words_in_ninety_is_near_and_another_text_is_not(seed):
    generator = random.Random(seed)
    text, other = make_story(generator)[0], make_story(generator)[0]
    words = text.split()
    for position in (7, 44):
        words[position] = "thimble"
    first, near, far = build_sketches([text, " ".join(words), other])
    index = DuplicateIndex(0.7, 0.7)
    index.add_sketch(first)
    match = index.find_duplicate(near)
    assert match and match.kind == "near" and 0.7 <= match.similarity < 1
    assert index.find_duplicate(far) is None


def test_the_instructions_of_a_source_make_no_duplicates():
    instruction = (
        "Write a program. Read the input as described below, compute the answer, and print it on "
        "one line. " * 3
    )
    texts = [
        f"{instruction}\nThe {number}th {word} of {number * 7}."
        for number, word in enumerate(["apple", "pear"] * 30)
    ]
    index = DuplicateIndex(0.8, 0.5)
    for sketch in build_sketches(texts):
        assert index.find_duplicate(sketch) is None
        index.add_sketch(sketch)


def test_tests_decide_between_similar_texts():
    def hash_outputs(outputs):
        tests = json.dumps({"inputs": ["1", "2", "3"], "outputs": outputs})
        return hash_tests(READERS["taco"](tests, name="x"))

    base, same, other = (
        hash_outputs(outputs) for outputs in (["1", "4", "9"], ["1", "4", "9"], ["1", "4", "8"])
    )
    assert compare_tests(base, same) is True
    assert compare_tests(base, other) is False
    assert compare_tests(base, {}) is None
    assert compare_tests(base, dict(list(base.items())[:1])) is True


def test_calls_and_asserts_of_the_same_arguments_are_compared():
    calls = READERS["taco"](
        json.dumps({"fn_name": "f", "inputs": [[1, [2]]], "outputs": [[3]]}), name="x"
    )
    asserts = READERS["mbpp"](
        {"test_list": ["assert g(1, [2]) == 3"], "code": "def g(a, b): pass"}, name="x"
    )
    assert hash_tests(calls) == hash_tests(asserts) and hash_tests(calls)


def test_the_result_does_not_depend_on_the_order_of_sets():
    texts = [make_story(random.Random(number))[0] for number in range(30)]
    texts += [text + " Again." for text in texts]
    results = []
    for _ in range(2):
        index, matches = DuplicateIndex(0.5, 0.5), []
        for sketch in build_sketches(texts):
            match = index.find_duplicate(sketch)
            matches.append(match and (match.key, match.similarity))
            index.add_sketch(sketch)
        results.append(matches)
    assert results[0] == results[1]
    assert [match and match[0] for match in results[0][30:]] == [str(i) for i in range(30)]


def read_records(source: str) -> list[ProblemRecord]:
    folder = None if SOURCES[source].package else DATA
    files, _ = locate_files(source, SourceConfig(), DataFinder(folder, hub=False))
    rows = ingest_rows(source, SourceConfig(), files, lambda: None)
    return [row for row in rows if isinstance(row, ProblemRecord)]


# Duplicates in real data, confirmed by reading them: rows 141 and 569 of MBPP repeat the words of
# 71 and 104; 756 is 434 with a link after it, and most of their tests are the same.
REAL_DUPLICATES = {"quickstart": set(), "mbpp": {"mbpp/141", "mbpp/569", "mbpp/756"}}


@pytest.mark.parametrize("source", REAL_DUPLICATES)
def test_only_the_known_duplicates_are_found_in_real_data(source):
    if source != "quickstart" and not (DATA / "mbpp_sanitized.json").is_file():
        pytest.skip(f"{DATA} has no mbpp_sanitized.json (set VERL_PIPELINE_DATA)")
    records = read_records(source)
    config = NearConfig()
    group = group_texts(records, config.words)[source]
    index = DuplicateIndex(config.threshold, config.agreeing, config.permutations)
    removed = set()
    for record in records:
        sketch = group.build_sketch(record.id, record.question, record.read_problem())
        if index.find_duplicate(sketch):
            removed.add(record.id)
        else:
            index.add_sketch(sketch)
    assert removed == REAL_DUPLICATES[source]


def test_shingles_are_sorted_without_repetitions():
    shingles = hash_shingles(extract_words("a b a b a b"), 2)
    assert list(shingles) == sorted(set(shingles.tolist()))
    assert shingles.dtype == numpy.uint64 and len(shingles) == 2
