"""Values cross exactly at any depth, and decoding builds nothing but values."""

import math
from collections import OrderedDict, defaultdict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.sandbox.inside.value_codec import ValueRefused, decode_value, encode_value

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.complex_numbers(allow_nan=False)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
hashable = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=8
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(hashable)
        | st.frozensets(hashable)
        | st.dictionaries(hashable, inner)
    ),
    max_leaves=20,
)


def describe_exactly(value):
    """Return the value with its types, which == ignores."""
    if type(value) in (list, tuple):
        return type(value), [describe_exactly(item) for item in value]
    if type(value) in (set, frozenset):
        return type(value), sorted((describe_exactly(item) for item in value), key=repr)
    if type(value) is dict:
        return dict, [
            (describe_exactly(key), describe_exactly(item)) for key, item in value.items()
        ]
    return type(value), repr(value)


@given(anything)
def test_decoding_returns_the_encoded_value(value):
    assert describe_exactly(decode_value(encode_value(value))) == describe_exactly(value)


def test_values_without_a_json_form_cross():
    assert math.isnan(decode_value(encode_value(float("nan"))))
    assert decode_value(encode_value([math.inf, -math.inf, -0.0, "\ud800"])) == [
        math.inf,
        -math.inf,
        -0.0,
        "\ud800",
    ]
    assert decode_value(encode_value(10**5000)) == 10**5000


def test_deep_values_do_not_recurse():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    found = decode_value(encode_value(deep))
    for _ in range(100_000):
        (found,) = found
    assert found == []


class Colour(IntEnum):
    RED = 7


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__

    def __index__(self):
        raise AssertionError("its methods must not be called")


def test_subclasses_cross_as_their_built_in_base():
    pair = namedtuple("pair", "a b")
    counts = defaultdict(int, x=1)
    sent = [
        counts,
        OrderedDict(a=1),
        Colour.RED,
        pair(1, 2),
        np.int64(3),
        np.float64(0.5),
        np.bool_(True),
        Liar(4),
    ]
    assert describe_exactly(decode_value(encode_value(sent))) == describe_exactly(
        [{"x": 1}, {"a": 1}, 7, (1, 2), 3, 0.5, True, 4]
    )


@pytest.mark.parametrize("value", [object(), iter([]), lambda: 0, np.zeros(3)])
def test_other_types_are_refused(value):
    with pytest.raises(ValueRefused, match="a value of type"):
        encode_value([value])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "{}",
        "[]",
        "[1, 2]",
        '[["l", 2], 1]',
        '[["l", -1]]',
        '[["l", true], 1]',
        '[["d", 1], "key"]',
        '[["s", 1], ["l", 0]]',
        '[["r", "Node", 0]]',
        '[["n", 0]]',
        '[["i", "0x1p9"]]',
        '[["l", [1, [2]]]]',
        '[["s", [1, {}]]]',
        '[["w", ["l", "t", ["a"], ["$"]]]]',
        '[["w", ["l", "t", [1], ["#"]]]]',
        '[["w", ["l", "s", ["a"], ["#"]]]]',
        '[["w", ["s", "l", ["a"], ["#"]]]]',
        '[["?", 1]]',
        "[[1, 2, 3]]",
        "[1.5, 1]",
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_malformed_text_is_refused(text):
    with pytest.raises(ValueRefused):
        decode_value(text)


def test_too_large_values_are_refused():
    with pytest.raises(ValueRefused, match="more than 10 characters"):
        decode_value('["aaaaaaaaaaaaaaaa"]', max_characters=10)


def test_lists_of_scalars_are_one_part():
    assert encode_value([1, -2, 3]) == '[["l", [1, -2, 3]]]'
    for value in ([1, 2.5, None, "a", True], (2**300, 1), frozenset({1.5, "b"})):
        assert describe_exactly(decode_value(encode_value(value))) == describe_exactly(value)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    "texts", ["ab", [chr(65 + i) * i for i in range(89)], [str(n) for n in range(200)]]
)
def test_many_rows_of_texts_cross_exactly(kind, texts):
    rows = kind(tuple(texts[i % len(texts)] for i in range(n % 7)) for n in range(3000))
    assert decode_value(encode_value(rows)) == rows
    for other in ((1, "a"), ["a"], ("a", None), "a", (True,), (("a",),)):
        mixed = kind([*rows, other])
        assert describe_exactly(decode_value(encode_value(mixed))) == describe_exactly(mixed)


def test_the_caller_exports_and_builds_other_items():
    sent = object()
    text = encode_value([sent, 1], lambda item: ("tag", [5], [item is sent, []]))
    assert decode_value(text, lambda *part: part) == [("tag", [5], [True, []]), 1]
    with pytest.raises(ValueRefused):
        decode_value(text)
