"""Equal and different values, compared as Python does where JSON can tell them apart."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.grading.output_comparison import is_matching_value
from verl_pipeline.grading.problem import Comparison

TOLERANT = Comparison("tolerance", absolute=1e-6, relative=1e-6)
ANY_ORDER = Comparison("any_order")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_matches_itself(value):
    assert is_matching_value(value, value)
    assert is_matching_value(value, value, ANY_ORDER)


SMALL = st.sampled_from(
    [None, False, True, 0, 1, -1, -2, 2, 1.0, 1.5, -0.0, 2**61 - 1, 1j, math.inf, "",
     "1", "true", "null", "1.5", b"", b"1", range(0), range(1), range(1, 2), range(0, 4, 3), 9**40]
)  # fmt: skip
HASHABLE = st.recursive(
    SMALL,
    lambda inner: st.frozensets(inner, max_size=3) | st.lists(inner, max_size=2).map(tuple),
    max_leaves=6,
)
ALIKE = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3),
    # A key that is no text: keys are then compared as they are.
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(HASHABLE, inner, max_size=2).map(lambda pairs: {**pairs, (): 0})
    ),
    max_leaves=8,
)


def _replace_tuples(value):
    """Return ``value`` with tuples for lists, so that Python's equality is ours."""
    if type(value) in (list, tuple):
        return tuple(map(_replace_tuples, value))
    if type(value) is dict:
        return {_replace_tuples(key): _replace_tuples(item) for key, item in value.items()}
    return value


@given(ALIKE, ALIKE)
def test_values_match_if_python_says_that_they_are_equal(left, right):
    assert is_matching_value(left, right) == (_replace_tuples(left) == _replace_tuples(right))


@given(st.lists(st.tuples(ALIKE, ALIKE), max_size=4), st.randoms(use_true_random=False))
def test_any_order_of_members_is_an_order_in_which_they_match(pairs, order):
    values, expected = [left for left, _ in pairs], [right for _, right in pairs]
    shuffled = order.sample(expected, len(expected))
    assert is_matching_value(shuffled, expected, ANY_ORDER)
    if is_matching_value(values, expected):
        assert is_matching_value(values, shuffled, ANY_ORDER)
    for value, other in pairs:
        is_match = is_matching_value([value], [other])
        assert is_matching_value([value, *expected], [*shuffled, other], ANY_ORDER) == is_match


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, [2]), [1, (2,)]),
        (1, 1.0),
        (True, 1),
        ({1: "a"}, {1: "a"}),
        ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
        ({True: "a"}, {1: "a"}),
        ({1, 2}, {2, 1}),
        ({(1, 2)}, frozenset([(1, 2)])),
        ({(math.nan, 1)}, {(math.nan, 1)}),
        (math.nan, math.nan),
        (complex(math.nan, 1), complex(math.nan, 1)),
        ({math.nan: 1}, {math.nan: 1}),
    ],
)
def test_values_that_match(value, expected):
    assert is_matching_value(value, expected)


KEYS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@given(st.dictionaries(KEYS, st.integers(), max_size=4), st.sampled_from(["", "[]", "{}"]))
def test_a_value_matches_what_json_makes_of_it(value, around):
    if around:
        value = [value, "x"] if around == "[]" else {"x": value}
    expected = json.loads(json.dumps(value))
    inner = next(iter(value.values())) if around == "{}" else value[0] if around else value
    read = next(iter(expected.values())) if around == "{}" else expected[0] if around else expected
    for comparison in (Comparison(), ANY_ORDER, TOLERANT):
        # Two keys that JSON writes alike are one afterwards.
        assert is_matching_value(value, expected, comparison) == (len(inner) == len(read))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: "a", "1": "b"}, {"1": "b"}),
        ({1: "a", "1": "b"}, {"1": "b", "2": "a"}),
        ({1: "a", "1": "b"}, {"1": "a"}),
        ({"1": "a"}, {1: "a"}),  # the expected key is no text
        ({1: "a", 2: "b"}, {"1": "a", 2: "b"}),  # nor are all here
        ({1: "a"}, {"1": "b"}),
        ({1: "a"}, {"01": "a"}),
        ({1: "a"}, {"1.0": "a"}),
        ({1: "a"}, {"true": "a"}),
        ({True: "a"}, {"True": "a"}),
        ({True: "a"}, {"1": "a"}),
        ({None: "a"}, {"None": "a"}),
        ({None: "a"}, {"": "a"}),
        ({"1.5": "a"}, {"1.50": "a"}),
        ({(1,): "a"}, {"(1,)": "a"}),
        ({b"a": 1}, {"a": 1}),
        ([{"1": "a"}], [{"true": "a"}]),
    ],
)
@pytest.mark.parametrize("comparison", [Comparison(), ANY_ORDER, TOLERANT])
def test_keys_that_differ(value, expected, comparison):
    assert not is_matching_value(value, expected, comparison)
    assert not is_matching_value([value, 1], [1, expected], ANY_ORDER)


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
        ({1, 2}, [1, 2]),
        ({1, 2}, {1, 3}),
        ({-1}, {-2}),
        ({1: {2}}, {1: {3}}),
        (range(3), [0, 1, 2]),
        (range(10**30), range(10**30 + 1)),
        (int, int),
        (complex(math.nan, 1), complex(math.nan, 2)),
    ],
)
def test_values_that_differ(value, expected):
    assert not is_matching_value(value, expected)
    assert not is_matching_value([value], [expected], ANY_ORDER)


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
    assert is_matching_value([left, 1], [1, right], ANY_ORDER)


def test_members_of_equal_hashes_match_in_any_order():
    pairs = [(-1 if n & 1 else -2, -1 if n & 2 else -2, n >> 2) for n in range(4_000)]
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert is_matching_value(shuffled, pairs, ANY_ORDER)
    assert is_matching_value(set(shuffled), set(pairs))
    assert not is_matching_value([*shuffled[1:], (0, 0, 0)], pairs, ANY_ORDER)


def test_integers_of_any_length_match():
    number = 7 * 10**100_000
    for value in (number, {number: 1}, {number, 1}, [[number]]):
        assert is_matching_value(value, value)
        assert is_matching_value([value, "x"], ["x", value], ANY_ORDER)
    assert not is_matching_value({number}, {number + 1})
    assert not is_matching_value({number: 1}, {"7": 1})
