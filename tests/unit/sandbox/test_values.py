"""Values cross exactly, as deep as they like, and nothing but values can be made of what a program
sends.
"""

import math
from collections import OrderedDict, defaultdict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.sandbox.inside import values
from verl_pipeline.sandbox.inside.values import ValueRefused, decode, encode

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


def exactly(value):
    """With types, which == does not look at."""
    if type(value) in (list, tuple):
        return type(value), [exactly(item) for item in value]
    if type(value) in (set, frozenset):
        return type(value), sorted((exactly(item) for item in value), key=repr)
    if type(value) is dict:
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    return type(value), repr(value)


@given(anything)
def test_what_comes_back_is_what_was_sent(value):
    assert exactly(decode(encode(value))) == exactly(value)


def test_floats_that_json_has_not_and_lone_surrogates():
    assert math.isnan(decode(encode(float("nan"))))
    assert decode(encode([math.inf, -math.inf, -0.0, "\ud800"])) == [
        math.inf,
        -math.inf,
        -0.0,
        "\ud800",
    ]
    assert decode(encode(10**5000)) == 10**5000


def test_depth_costs_no_stack():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    found = decode(encode(deep))
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
        raise AssertionError("its methods are not asked")


def test_subclasses_cross_as_what_they_are_based_on():
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
    assert exactly(decode(encode(sent))) == exactly(
        [{"x": 1}, {"a": 1}, 7, (1, 2), 3, 0.5, True, 4]
    )


@pytest.mark.parametrize("value", [object(), iter([]), lambda: 0, np.zeros(3)])
def test_other_types_are_refused(value):
    with pytest.raises(ValueRefused, match="a value of type"):
        encode([value])


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
        '[["r", "Node"], ["d", 0]]',
        '[["n", 0]]',
        '[["x", "0x1p999999999999"]]',
        '[["?", 1]]',
        "[[1, 2, 3]]",
        "[1.5]",
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_what_is_no_value_is_refused(text):
    with pytest.raises(ValueRefused):
        decode(text)


def test_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(values, "MOST_PARTS", 10)
    with pytest.raises(ValueRefused, match="more than 10 parts"):
        encode(list(range(20)))
    with pytest.raises(ValueRefused):
        decode("[" + "1," * 20 + "1]")
    monkeypatch.setattr(values, "MOST_CHARACTERS", 10)
    with pytest.raises(ValueRefused, match="more than 10 characters"):
        decode('["aaaaaaaaaaaaaaaa"]')


class Node:
    def __init__(self, value, next=None):
        raise AssertionError("records are made without their constructor")


def test_records_cross_as_attributes():
    node = object.__new__(Node)
    node.value, node.next = 1, None
    found = decode(encode([node], ["Node"]), {"Node": Node})[0]
    assert type(found) is Node and vars(found) == {"value": 1, "next": None}


def test_references():
    sent = object()
    text = encode([sent], refer=lambda item: 5 if item is sent else None)
    assert decode(text, resolve=lambda number: f"object {number}") == ["object 5"]
