"""Rows with asserts: the names that tests take from the program, from helpers, and from nowhere."""

import random

import pytest

from verl_pipeline.grading import Verdict, grade
from verl_pipeline.grading.readers import (
    BadRow,
    read_humaneval,
    read_leetcode,
    read_mbpp,
    read_mbpp_plus,
)
from verl_pipeline.grading.readers.leetcode_nodes import NODES_PRELUDE

pytestmark = pytest.mark.timeout(120)

REVERSES = """
class Solution:
    def reverse(self, head):
        before = None
        while head:
            head.next, before, head = before, head, head.next
        return before
"""
MIRRORS = """
class Solution:
    def mirror(self, root):
        if root:
            root.left, root.right = self.mirror(root.right), self.mirror(root.left)
        return root
"""
BUILDS = """
class Solution:
    def build(self, values):
        root = TreeNode(values[0]) if values else None
        if len(values) > 1:
            root.left = self.build(values[1:2])
            root.right = self.build(values[2:])
        return root
"""
ANCESTOR = """
class Solution:
    def ancestor(self, root, p, q):
        if root in (None, p, q):
            return root
        left, right = self.ancestor(root.left, p, q), self.ancestor(root.right, p, q)
        return root if left and right else left or right
"""
OWN_NODES = """
class ListNode:
    __slots__ = ("val", "next")
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
class TreeNode:
    __slots__ = ("val", "left", "right", "parent")
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


@pytest.mark.parametrize("own_nodes", ["", OWN_NODES])
@pytest.mark.parametrize(
    ("method", "checks", "program"),
    [
        (
            "reverse",
            "assert is_same_list(candidate(list_node([1, 2, 3])), list_node([3, 2, 1]))\n"
            "    assert candidate(head=list_node([])) is None",
            REVERSES,
        ),
        (
            "mirror",
            "expected = tree_node([1, None, 2, None, 3])\n"
            "    assert is_same_tree(candidate(tree_node([1, 2, None, 3])), expected)",
            MIRRORS,
        ),
        ("build", "assert is_same_tree(candidate([1, 2, 3]), tree_node([1, 2, 3]))", BUILDS),
        (
            "ancestor",
            "root = tree_node([3, 5, 1])\n"
            "    assert candidate(root, root.left, root.right) is root\n"
            "    assert candidate(root, root.left, root.left) is root.left",
            ANCESTOR,
        ),
    ],
)  # fmt: skip
def test_nodes_of_leetcode(sandbox, method, checks, program, own_nodes):
    tests = f"def check(candidate):\n    {checks}\n\ncheck(Solution().{method})"
    problem = read_leetcode({"functional": tests}, name=method)
    assert grade(problem, own_nodes + program, sandbox).verdict is Verdict.ACCEPTED
    for wrong in ("TreeNode(7)", "None", "ListNode(3)", "root[0]", "[3, 2, 1]"):
        lost = f"class Solution:\n    def {method}(self, *root, **head):\n        return {wrong}"
        assert grade(problem, own_nodes + lost, sandbox).reward == 0.0


def list_levels(root) -> list:
    """Return a tree as LeetCode writes it."""
    values, nodes = [], [root]
    for node in nodes:
        values.append(None if node is None else node.val)
        if node is not None:
            nodes += [node.left, node.right]
    while values and values[-1] is None:
        values.pop()
    return values


def test_trees_are_read_as_leetcode_writes_them():
    scope: dict = {}
    exec(NODES_PRELUDE, scope)
    draw = random.Random(7)
    for _ in range(300):
        root = scope["TreeNode"](draw.randrange(9))
        nodes = [root]
        for _ in range(draw.randrange(12)):
            node = scope["TreeNode"](draw.randrange(9))
            setattr(draw.choice(nodes), draw.choice(["left", "right"]), node)
            nodes.append(node)
        values = list_levels(root)
        assert list_levels(scope["tree_node"](values)) == values
        assert scope["is_same_tree"](root, scope["tree_node"](values))
        root.val += 10
        assert not scope["is_same_tree"](root, scope["tree_node"](values))


def test_constants_of_the_reference_are_the_programs(sandbox):
    code = "PRIMES = [2, 3]\ndef f(x):\n    return x"
    problem = read_mbpp({"task_id": 1, "code": code, "test_list": ["assert f(2) == PRIMES[0]"]})
    assert problem.tests[0].names == ("f", "PRIMES")
    assert grade(problem, code, sandbox).verdict is Verdict.ACCEPTED


LOST_HELPER = "def check(c):\n    assert same(c(1), 2)\ncheck(Solution().f)"
LOST_CONSTANT = "def check(c):\n    assert c() == E"


@pytest.mark.parametrize(
    ("read", "row"),
    [
        (read_leetcode, {"functional": LOST_HELPER}),
        (read_mbpp, {"code": "def f(): 1", "test_list": ["assert f() == E"]}),
        (read_mbpp_plus, {"code": "def f(): 1", "test_list": ["f()"], "test": "assert f() == E"}),
        (read_humaneval, {"prompt": "def f():\n", "entry_point": "f", "test": LOST_CONSTANT}),
    ],
)
def test_tests_that_use_what_nothing_defines_are_bad_rows(read, row):
    with pytest.raises(BadRow, match="which nothing defines"):
        read(row, name="p")


def test_names_bound_in_any_way_are_no_bad_row():
    tests = """
import os.path, json as j
from math import sqrt
def check(c, *rest, flag=None, **kw):
    global total
    assert c(1)
    total = [a for a in rest] + [(b := 1), b]
    try:
        with open(os.devnull) as file:
            pass
    except OSError as error:
        print(error, file, c, kw, flag)
    match rest:
        case [first, *others] | {"k": first, **others}:
            print(first, others)
    for i, (k, v) in enumerate({}): print(i, k, v, lambda z: z)
    del k
    assert c() == 1
    return j, sqrt, total, __name__, Counter, defaultdict
check(Solution().f)
"""
    assert read_leetcode({"functional": tests}, name="p").tests[0].names == ("Solution",)
