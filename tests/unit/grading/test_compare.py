"""What counts as the same output, case by case of what other graders get wrong."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.grading.compare import text_matches, value_matches
from verl_pipeline.grading.problem import Comparison

TOLERANT = Comparison("tolerance", absolute=1e-6, relative=1e-6)
ANY_ORDER = Comparison("any_order")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("3\n", "3"),
        ("1 2 3 \n", "1 2 3"),
        ("  a\r\nb\n\n", "a\nb"),
        ("0.5", "0.50"),
        ("1e3", "1000"),
        ("+7 -0", "7 0"),
        ("", " \n"),
    ],
)
def test_the_same_text(output, expected):
    assert text_matches(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("MAYBE", "YES"),  # rLLM's TACO grader accepts this line and the four below
        ("Bob\nAlice", "Alice\nBob"),
        ("100001", "100000"),
        ("12345678", "12345600"),
        ("-1", "IMPOSSIBLE"),
        ("0.333", "0.3333"),
        ("3 2 1", "1 2 3"),
        ("1\n2\n3", "1\n2"),
        ("1\n\n2", "1\n2"),
        ("1 2", "1\n2"),
        ("yes", "YES"),
        ("١", "1"),  # an Arabic digit, which Decimal takes
        ("1_000", "1000"),
        ("1\u00a02", "1 2"),
        ("\u0410", "A"),  # Cyrillic
        ("nan", "1"),
        ("inf", "1e999"),
        ("1e99999999", "1"),
        ("", "0"),
    ],
)
def test_other_text(output, expected):
    assert not text_matches(output, expected)


def test_what_a_problem_declares_is_forgiven_and_nothing_else():
    assert text_matches("0.33333333", "0.333333333", TOLERANT)
    assert not text_matches("0.3334", "0.3333", TOLERANT)
    assert not text_matches("YES 1.0", "NO 1.0", TOLERANT)
    assert not text_matches("nan", "0.5", TOLERANT)
    assert text_matches("b 2\na 1", "a 1\nb 2.0", ANY_ORDER)
    assert not text_matches("a 1\na 1", "a 1\nb 2", ANY_ORDER)


@given(st.text())
def test_every_text_is_itself(text):
    assert text_matches(text, text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_is_itself(value):
    assert value_matches(value, value)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ((1, [2]), [1, (2,)]),
        (1, 1.0),
        (True, 1),
        ({1: "a"}, {1: "a"}),
        ({1, 2}, {2, 1}),
        (math.nan, math.nan),
    ],
)
def test_the_same_value(found, wanted):
    assert value_matches(found, wanted)


class Everything:
    def __eq__(self, _other):
        return True

    __hash__ = None


class Liar(str):
    def __eq__(self, _other):
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (Everything(), 1),
        (Liar("x"), "y"),
        (Liar("y"), "y"),  # not even then: its equality could have been asked
        ([Everything()], [1]),
        ({"a": Everything()}, {"a": 1}),
        ([1], [1, 2]),
        ("1", 1),
        (b"a", "a"),
        ([1, 2], {1, 2}),
        (0.1 + 0.2, 0.3),
        (10**400, math.inf),
        (math.nan, 1.0),
        ([2, 1], [1, 2]),
        (None, 0),
    ],
)
def test_another_value(found, wanted):
    assert not value_matches(found, wanted)


def test_tolerance_and_order_of_values_where_declared():
    assert value_matches([0.1 + 0.2, ["a", 1e9]], [0.3, ["a", 1e9 + 1e-6]], TOLERANT)
    assert not value_matches([0.31], [0.3], TOLERANT)
    assert value_matches([[1], {"a": 2}], [{"a": 2}, [1]], ANY_ORDER)
    assert not value_matches([1, 1, 2], [1, 2, 2], ANY_ORDER)


def test_a_value_as_deep_as_memory_allows():
    left, right = 1, 1
    for _ in range(100_000):
        left, right = [left], [right]
    assert value_matches(left, right)
