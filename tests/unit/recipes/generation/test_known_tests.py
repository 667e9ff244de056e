"""Tests of every source as pairs of input and output, all of them or none."""

import json

import pytest

from verl_pipeline.grading.readers import read_problem
from verl_pipeline.recipes.deepcoder.generation.candidates import Rejection
from verl_pipeline.recipes.deepcoder.generation.known_tests import NO_PAIRS, read_known_tests

TWO_SUM = "class Solution:\n    def twoSum(self, nums, target):\n        return [0, 1]\n"


def read(source, tests, solutions=()):
    problem = read_problem(source, json.dumps(tests), name="p")
    known = read_known_tests(problem, list(solutions))
    return known, [(pair.input, pair.output) for pair in known.pairs]


def test_asserts_become_pairs():
    known, pairs = read("mbpp", {"test_list": ["assert f((1, 2), 'a') == [3]", "assert 4 == f(5)"]})

    assert known.entry_point == "f"
    assert pairs == [(([1, 2], "a"), [3]), ((5,), 4)]


def test_named_arguments_get_the_order_of_the_solution():
    check = "def check(candidate):\n    assert candidate(target = 9, nums = [2, 7]) == [0, 1]\n"

    known, pairs = read(
        "leetcode", {"functional": f"{check}\ncheck(Solution().twoSum)\n"}, [TWO_SUM]
    )

    assert known.entry_point == "twoSum" and pairs == [(([2, 7], 9), [0, 1])]


def test_calls_and_texts_are_pairs_already():
    calls, pairs = read("taco", {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "f"})
    assert (calls.entry_point, calls.is_boxed, pairs) == ("f", True, [((1, 2), 3)])
    texts, pairs = read("taco", {"inputs": ["1 2"], "outputs": ["3"]})
    assert (texts.entry_point, pairs) == (None, [("1 2\n", "3")])


@pytest.mark.parametrize(
    "lines",
    [
        ["assert f(1) > 2"],
        ["assert f(1) == 2 and f(2) == 3"],
        ["assert f(1) == 2", "assert g(1) == 2"],
        ["assert f({1, 2}) == 2"],
        ["assert f({1: 2}) == 2"],
        ["assert f(g(1)) == 2"],
        ["x = 1\nassert f(x) == 2"],
    ],
)
def test_anything_else_leaves_no_pair(lines):
    with pytest.raises(Rejection) as found:
        read("mbpp", {"test_list": lines})

    assert found.value.reason == NO_PAIRS
