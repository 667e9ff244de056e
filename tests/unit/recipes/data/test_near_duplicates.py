"""What counts as the same problem, and that nothing clean does."""

import json
import os
import random
from pathlib import Path

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recipes.deepcoder.data import near_duplicates as twins
from recipes.deepcoder.data.deduplication import groups_of
from recipes.deepcoder.data.ingestion import ingest, locate
from recipes.deepcoder.data.near_duplicates import (
    Group,
    Index,
    agreement,
    bands_of,
    jaccard,
    shingles_of,
    words_of,
)
from recipes.deepcoder.data.preparation_config import NearConfig, SourceConfig
from recipes.deepcoder.data.problem_records import Record
from tests.unit.recipes.data.mixture import story
from verl_pipeline.evaluation.data import Finder
from verl_pipeline.grading.readers import READERS

DATA = Path(
    os.environ.get("VERL_PIPELINE_DATA", Path(__file__).parents[4].parent / "shared" / "data")
)
words = st.lists(
    st.sampled_from("alpha beta gamma delta epsilon zeta eta theta".split()), max_size=40
)


@settings(deadline=None)
@given(words, words, st.integers(1, 6))
def test_jaccard_is_that_of_the_sets_of_runs(one, other, length):
    def runs(text):
        return (
            {tuple(text[i : i + length]) for i in range(max(1, len(text) - length + 1))}
            if text
            else set()
        )

    left, right = runs(one), runs(other)
    if left | right:
        expected = len(left & right) / len(left | right)
        assert jaccard(shingles_of(one, length), shingles_of(other, length)) == pytest.approx(
            expected
        )


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii")))
def test_normalisation_forgets_case_punctuation_and_space(text):
    decorated = "  ".join(f"{word.upper()}!" for word in words_of(text))
    assert words_of(decorated) == words_of(" ".join(words_of(text)))


def sketches(texts):
    group = Group(texts, 5)
    return [group.sketch(str(number), text, None) for number, text in enumerate(texts)]


@given(st.floats(0.3, 0.95), st.sampled_from([64, 128, 256]))
def test_a_pair_at_the_threshold_is_rarely_missed(threshold, permutations):
    bands, rows = bands_of(threshold, permutations)
    assert bands * rows <= permutations and bands > 1
    assert (1 - threshold**rows) ** bands <= 0.01


@settings(deadline=None, max_examples=30)
@example(4739)
@given(st.integers(0, 10**6))
def test_a_text_with_two_other_words_in_ninety_is_near_and_another_text_is_not(seed):
    generator = random.Random(seed)
    text, other = story(generator)[0], story(generator)[0]
    changed = text.split()
    for place in (7, 44):
        changed[place] = "thimble"
    first, near, far = sketches([text, " ".join(changed), other])
    index = Index(0.7, 0.7)
    index.add(first)
    twin = index.twin(near)
    assert twin and twin.kind == "near" and 0.7 <= twin.similarity < 1
    assert index.twin(far) is None


def test_the_instructions_of_a_source_make_no_twins():
    instruction = (
        "Write a program. Read the input as described below, compute the answer, and print it on "
        "one line. " * 3
    )
    texts = [
        f"{instruction}\nThe {number}th {word} of {number * 7}."
        for number, word in enumerate(["apple", "pear"] * 30)
    ]
    index = Index(0.8, 0.5)
    for sketch in sketches(texts):
        assert index.twin(sketch) is None
        index.add(sketch)


def test_tests_decide_between_alike_texts():
    def stdin(outputs):
        return READERS["taco"](
            json.dumps({"inputs": ["1", "2", "3"], "outputs": outputs}), name="x"
        )

    base, same, other = (
        twins.tests_of(stdin(outputs))
        for outputs in (["1", "4", "9"], ["1", "4", "9"], ["1", "4", "8"])
    )
    assert agreement(base, same) is True
    assert agreement(base, other) is False
    assert agreement(base, {}) is None
    assert agreement(base, dict(list(base.items())[:1])) is True


def test_calls_and_asserts_of_the_same_arguments_are_compared():
    calls = READERS["taco"](
        json.dumps({"fn_name": "f", "inputs": [[1, [2]]], "outputs": [[3]]}), name="x"
    )
    asserts = READERS["mbpp"](
        {"test_list": ["assert g(1, [2]) == 3"], "code": "def g(a, b): pass"}, name="x"
    )
    assert twins.tests_of(calls) == twins.tests_of(asserts) and twins.tests_of(calls)


def test_the_order_of_a_set_does_not_show():
    texts = [story(random.Random(number))[0] for number in range(30)]
    texts += [text + " Again." for text in texts]
    found = []
    for _ in range(2):
        index, names = Index(0.5, 0.5), []
        for sketch in sketches(texts):
            twin = index.twin(sketch)
            names.append(twin and (twin.key, twin.similarity))
            index.add(sketch)
        found.append(names)
    assert found[0] == found[1]
    assert [twin and twin[0] for twin in found[0][30:]] == [str(number) for number in range(30)]


def records(source: str) -> list[Record]:
    files, _ = locate(
        source, SourceConfig(), Finder(DATA if source != "quickstart" else None, hub=False)
    )
    return [
        row
        for row in ingest(source, SourceConfig(), files, lambda: None)
        if isinstance(row, Record)
    ]


# Pairs that are the same problem, looked at one by one: rows 141 and 569 of MBPP repeat the words
# of 71 and 104; 756 is 434 with a link behind it, and most tests are the same.
REAL = {"quickstart": set(), "mbpp": {"mbpp/141", "mbpp/569", "mbpp/756"}}


@pytest.mark.parametrize("source", REAL)
def test_no_clean_row_of_real_data_has_a_twin(source):
    if source != "quickstart" and not (DATA / "mbpp_sanitized.json").is_file():
        pytest.skip(f"{DATA} has no mbpp_sanitized.json (set VERL_PIPELINE_DATA)")
    rows = records(source)
    config = NearConfig()
    group = groups_of(rows, config.words)[source]
    index, removed = Index(config.threshold, config.agreeing, config.permutations), set()
    for record in rows:
        sketch = group.sketch(record.id, record.question, record.problem())
        if index.twin(sketch):
            removed.add(record.id)
        else:
            index.add(sketch)
    assert removed == REAL[source]


def test_shingles_are_sorted_and_each_once():
    found = shingles_of(words_of("a b a b a b"), 2)
    assert (
        list(found) == sorted(set(found.tolist()))
        and found.dtype == numpy.uint64
        and len(found) == 2
    )
