"""Derived inputs keep what the known ones show, and are the same for the same seed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.recipes.deepcoder.generation.input_derivation import derive_inputs

KNOWN = [
    ([1, 4, 9], 3, "abc", [True, False, True]),
    ([2, 5], 2, "ba", [False, False]),
    ([0, 3, 7, 8], 4, "cabd", [True, True, True, False]),
]


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=4))
def test_arguments_keep_types_ranges_and_relations(seed):
    inputs = derive_inputs(KNOWN, 20, seed)

    assert inputs and inputs == derive_inputs(KNOWN, 20, seed)
    for values, count, text, flags in inputs:
        assert values == sorted(set(values)) and all(0 <= value <= 9 for value in values)
        assert count == len(values) == len(text) == len(flags)
        assert set(text) <= set("abcd") and all(type(flag) is bool for flag in flags)
    assert not {repr(one) for one in inputs} & {repr(one) for one in KNOWN}


def test_an_index_never_exceeds_its_list():
    known = [([5, 1, 2], 1), ([7, 7], 2), ([3, 9, 9, 1], 0)]

    assert all(0 <= index <= len(values) for values, index in derive_inputs(known, 50, "s"))


def test_rows_of_a_matrix_have_one_length():
    known = [([[1, 2], [3, 4]],), ([[5, 6, 7]],), ([[0], [1], [2]],)]

    for (matrix,) in derive_inputs(known, 30, "s"):
        assert len({len(row) for row in matrix}) == 1


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("ab", max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xy"), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4))
def test_inputs_of_any_types_are_derived_without_an_error(known):
    for one in derive_inputs(known, 5, "s"):
        assert len(one) == 2


def test_members_of_several_types_have_no_order():
    assert derive_inputs([([1, 2],), (["a", "b"],), ([3, 7],)], 5, "s")
    assert derive_inputs([([[1], [2]],), ([["a"], [3]],), ([[3]],)], 5, "s")


def test_on_standard_input_counts_stay_and_numbers_move_within_their_range():
    known = ["3 10\n4 5 6\n", "2 20\n1 9\n", "4 15\n1 1 2 3\n"]

    texts = derive_inputs(known, 30, "s")

    assert texts
    for text in texts:
        first, second = text.splitlines()
        count, limit = map(int, first.split())
        assert len(second.split()) == count and 10 <= limit <= 20


def test_without_anything_to_change_there_is_no_input():
    assert derive_inputs(["abc\n", "d\n"], 5, "s") == []
    assert derive_inputs([(), ()], 5, "s") == []
