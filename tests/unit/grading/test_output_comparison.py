"""Equal and different outputs, many of which other graders confuse."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.grading.output_comparison import is_matching_text
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
        ("5.", "5"),
        (".50", "0.5"),
        ("-0.0e5", "0"),
        ("12300e-2", "123"),
        ("0001E+2", "100.000"),
        ("0." + "3" * 5000 + "0", "0." + "3" * 5000),
        ("7" * 100_000 + ".0", "7" * 100_000),
        ("0" * 100_000 + "7", "7"),
        ("0.5" + " " * 100_000, "0.5"),
        ("a" + "\t" * 100_000 + "b", "a b"),
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
        (".", "0"),
        ("-", "0"),
        ("1e", "1"),
        ("1e+", "1"),
        ("e5", "0"),
        ("1e5e5", "1e5"),
        ("--1", "1"),
        ("1.2.3", "1.23"),
        ("1e12345", "1e12346"),
        ("1e-9999", "0"),
        ("-1e9", "1e9"),
        ("7" * 100_000, "7" * 99_999 + "8"),
        ("3" * 30 + ".1", "3" * 30 + ".2"),
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


def test_a_tolerance_is_the_decimal_that_the_problem_writes():
    assert is_matching_text("0.300001", "0.3", Comparison("tolerance", absolute=1e-6))
    assert not is_matching_text("0.3000010000001", "0.3", Comparison("tolerance", absolute=1e-6))
    assert is_matching_text("1" * 50 + "2", "1" * 50 + "1", Comparison("tolerance", absolute=1.0))
    assert not is_matching_text("1" * 50 + "3", "1" * 51, Comparison("tolerance", absolute=1.0))
    assert is_matching_text("9" * 5000, "1e5000", Comparison("tolerance", relative=1e-9))
    assert not is_matching_text("1e9999", "1e-9999", TOLERANT)


NUMBERS = st.from_regex(r"\A[+-]?([0-9]{1,4}(\.[0-9]{0,4})?|\.[0-9]{1,4})([eE][+-]?[0-9]{1,2})?\Z")


@given(NUMBERS, NUMBERS)
def test_numbers_match_if_they_are_equal_decimals(left, right):
    assert is_matching_text(left, right) == (Decimal(left) == Decimal(right))
    assert is_matching_text(left, f"{Decimal(left):f}")


WORDS = st.lists(st.sampled_from(["a", "1", "1.0", "2", "", "b"]), max_size=3).map(" ".join)


@given(st.lists(WORDS, max_size=5), st.randoms(use_true_random=False))
def test_any_order_of_lines_is_an_order_in_which_they_match(lines, order):
    shuffled = order.sample(lines, len(lines))
    text, other = (f"x\n{chr(10).join(each)}\nx" for each in (lines, shuffled))
    assert is_matching_text(text, other, ANY_ORDER)
    assert not is_matching_text(f"{text}\nc", f"{other}\n1", ANY_ORDER)
    assert not is_matching_text(f"{text} x", other, ANY_ORDER)


@given(st.text())
def test_every_text_matches_itself(text):
    assert is_matching_text(text, text)
