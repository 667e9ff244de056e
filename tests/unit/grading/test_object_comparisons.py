"""Pytest files that compare the program's objects with values: refused, and only these."""

import pytest

from verl_pipeline.grading.readers import BadRow, read_kodcode

HEAD = "from solution import Money, Extract, change\nimport solution as s\n"


@pytest.mark.parametrize(
    "body",
    [
        "assert Money(5) == 5 and Money(5).cents == 500",
        "m = Money(5)\n    assert m.cents == 500\n    assert 5 == m",
        "m = s.Money(5)\n    assert m < 6 and m.cents",
        "assert Money.ZERO and 0 <= Money(1) <= 2",
        "assert Money('1').cents == 1 and Money('1') != '2'",
        "a = b = Money(1)\n    assert a.cents == b.cents and b == [1]",
    ],
)
def test_objects_compared_with_values_are_refused(body):
    with pytest.raises(BadRow, match="compare an object of Money with a value"):
        read_kodcode(f"{HEAD}def test_a():\n    {body}\n", name="p")


@pytest.mark.parametrize(
    "body",
    [
        "assert Money(5) == Money(5) and Money(5).cents == 500",
        "assert Extract([[1]]) == [1] and Extract('a').upper() == 'A'",  # a function
        "m = Money(5)\n    m = change(m)\n    assert m == 5 and Money(1).cents == 1",
        "assert Money(5).cents == 5 and Money(5) != None and Money(5) is not None",
        "assert change(Money(5)) == 5 and Money(5).cents",
        "m = Money(5)\n    assert m * 2 == Money(10) and m.cents == 500 and m in [Money(5)]",
    ],
)
def test_other_comparisons_are_read(body):
    assert read_kodcode(f"{HEAD}def test_a():\n    {body}\n", name="p").tests


def test_attributes_that_hold_objects_count_too():
    tests = (
        "from solution import Stack\nimport unittest\nclass TestStack(unittest.TestCase):\n"
        "    def setUp(self):\n        self.stack = Stack()\n"
        "    def test_a(self):\n        self.stack.push(1)\n        assert self.stack == [1]\n"
    )
    with pytest.raises(BadRow, match="an object of Stack"):
        read_kodcode(tests, name="p")
