"""Equal and different outputs, many of which other graders confuse."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.grading.output_comparison import is_matching_text, is_matching_value
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
def test_texts_that_match(output, expected):
    assert is_matching_text(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("MAYBE", "YES"),  # rLLM's TACO grader accepts this and the next four
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
def test_texts_that_differ(output, expected):
    assert not is_matching_text(output, expected)


def test_declared_tolerance_and_order_apply_and_nothing_else_does():
    assert is_matching_text("0.33333333", "0.333333333", TOLERANT)
    assert not is_matching_text("0.3334", "0.3333", TOLERANT)
    assert not is_matching_text("YES 1.0", "NO 1.0", TOLERANT)
    assert not is_matching_text("nan", "0.5", TOLERANT)
    assert is_matching_text("b 2\na 1", "a 1\nb 2.0", ANY_ORDER)
    assert not is_matching_text("a 1\na 1", "a 1\nb 2", ANY_ORDER)


@given(st.text())
def test_every_text_matches_itself(text):
    assert is_matching_text(text, text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_matches_itself(value):
    assert is_matching_value(value, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, [2]), [1, (2,)]),
        (1, 1.0),
        (True, 1),
        ({1: "a"}, {1: "a"}),
        ({1, 2}, {2, 1}),
        (math.nan, math.nan),
    ],
)
def test_values_that_match(value, expected):
    assert is_matching_value(value, expected)


class EqualToAll:
    def __eq__(self, _other):
        return True

    __hash__ = None


class Liar(str):
    def __eq__(self, _other):
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (EqualToAll(), 1),
        (Liar("x"), "y"),
        (Liar("y"), "y"),  # refused even if equal, because its own __eq__ could have been called
        ([EqualToAll()], [1]),
        ({"a": EqualToAll()}, {"a": 1}),
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
def test_values_that_differ(value, expected):
    assert not is_matching_value(value, expected)


def test_declared_tolerance_and_order_apply_to_values():
    assert is_matching_value([0.1 + 0.2, ["a", 1e9]], [0.3, ["a", 1e9 + 1e-6]], TOLERANT)
    assert not is_matching_value([0.31], [0.3], TOLERANT)
    assert is_matching_value([[1], {"a": 2}], [{"a": 2}, [1]], ANY_ORDER)
    assert not is_matching_value([1, 1, 2], [1, 2, 2], ANY_ORDER)


def test_deep_values_do_not_recurse():
    left, right = 1, 1
    for _ in range(100_000):
        left, right = [left], [right]
    assert is_matching_value(left, right)
