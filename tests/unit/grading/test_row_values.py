"""Text and values of rows, read into exact built-in values."""

import sys

import numpy
import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.row_variants import make_arrays, write_json, write_python
from verl_pipeline.grading.problem import CallTest, Problem, write_repr
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.row_values import (
    format_value,
    make_plain,
    parse_container,
    parse_integer,
    parse_json,
    parse_text,
    shorten_integers,
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.sampled_from([14_300, 50_000]).map(lambda bits: 3 - 2**bits),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
PYTHON_VALUES = st.recursive(
    st.one_of(SCALARS, st.binary(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        # Of one member: the order of several would change the text.
        st.sets(st.one_of(st.integers(), st.text(max_size=3)), max_size=1),
        st.dictionaries(st.one_of(st.integers(), st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=8,
)


def show(value):
    """Return text that tells 1 from 1.0 and from True, and a list from a tuple."""
    return write_python(value)


@given(value=JSON_VALUES)
@settings(deadline=None)
def test_json_and_repr_and_arrays_give_the_same_value(value):
    limit = sys.get_int_max_str_digits()
    for text in (write_json(value), write_json(value, ensure_ascii=False), write_python(value)):
        assert show(parse_text(text)) == show(value)
        assert show(parse_text(text.encode(errors="surrogatepass").decode())) == show(value)
    assert show(make_plain(make_arrays(value))) == show(value)
    assert sys.get_int_max_str_digits() == limit


@given(value=PYTHON_VALUES)
@settings(deadline=None)
def test_a_written_value_is_read_again(value):
    assert show(parse_text(format_value(value))) == show(value)
    assert show(parse_text(write_python(value))) == show(value)


@given(digits=st.text("0123456789", min_size=1, max_size=20_000), negative=st.booleans())
@settings(deadline=None, max_examples=30)
def test_integers_of_any_length(digits, negative):
    text = "-" * negative + digits * 40
    value = 0
    for start in range(0, len(digits * 40), 4000):
        chunk = (digits * 40)[start : start + 4000]
        value = value * 10 ** len(chunk) + int(chunk)
    assert parse_integer(text) == (-value if negative else value)


def test_values_of_libraries_become_plain():
    table = pyarrow.table({"x": [{"a": [1, None], "b": "t"}]})
    for value in (table["x"][0], table.to_pandas()["x"][0], pandas.Series([{"a": [1, None]}])[0]):
        plain = parse_container(value, "x")
        assert make_plain(plain)["a"][0] == 1
    assert make_plain(numpy.array([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert make_plain({"a": (numpy.str_("x"), numpy.bool_(True))}) == {"a": ("x", True)}
    for value in (numpy.datetime64("2025-01-01"), pandas.NA, object(), 1j):
        with pytest.raises(BadRow, match="a value of type"):
            make_plain([value])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "the key 'a' twice"),
        ("{'a': 1, 'a': 1}", "the key 'a' twice"),
        ("['a' 'b']", "without a comma"),
        ("['a'\n 'b']", "without a comma"),
        ("[b'a' b'b']", "without a comma"),
        ("[1 2]", "not valid JSON"),
        ("[nan]", "not valid JSON"),
        ("array([1])", "not valid JSON"),
        ("[1, ...]", "a value of type"),
        ("open('x')", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("(" * 100_000, "not valid JSON"),
        (b"\xff\xfe[]", "not valid UTF-8"),
        # JSON but for its quotes, with escapes that Python would read otherwise.
        ("['\\/']", "not valid JSON"),
        ("['\\ud83d\\ude00']", "not valid JSON"),
    ],
)
def test_text_that_would_be_misread_is_refused(text, reason):
    with pytest.raises(BadRow, match=reason):
        parse_text(text)


def test_escapes_that_repr_writes_are_read():
    for value in (["\\/"], ["it's \x85 \u2028 \ud800 \U0001f600 \\ud83d\\ude00"], ["\\", "/"]):
        assert parse_text(repr(value)) == value


def test_text_within_text_is_opened_and_nothing_else():
    assert parse_container(write_json(write_json(write_json([1]))), "x") == [1]
    with pytest.raises(BadRow, match="expected a list of x, found an integer"):
        parse_container("5", "a list of x")
    assert parse_json(b'\xef\xbb\xbf"5"') == "5"


def test_long_integers_in_code_are_shortened_outside_of_strings_only():
    digits = "7" * 5000
    code = f"# don't\nx = -{digits} + 1.{digits} + x{digits}\ny = '{digits}'\n"
    shortened = shorten_integers(code)
    assert f"-{hex(parse_integer(digits))} + 1.{digits} + x{digits}" in shortened
    assert f"'{digits}'" in shortened and shorten_integers("x = 12\n") == "x = 12\n"


def test_a_problem_with_a_long_integer_has_a_size_and_a_digest():
    def make(value):
        return Problem("x", "taco", (CallTest((10**5000, {"a": [value]}), {1}),), "f")

    assert make(1).tests[0].size > 4000
    assert write_repr(make(1)) == write_repr(make(1)) != write_repr(make(2))
    small = Problem("x", "taco", (CallTest((1,), 2),), "f")
    assert write_repr(small) == repr(small)
