"""The starter code of a prompt."""

from tests.helpers.source_rows import ADD_METHOD
from verl_pipeline.recipes.deepcoder.data.prompt_length import build_starter


def test_a_starter_shows_the_signatures_and_nothing_of_the_bodies():
    assert (
        build_starter(["add_two"], [ADD_METHOD])
        == "class Solution:\n    def add_two(self, a: int, b: int) -> int:"
    )
    assert (
        build_starter(["f"], ["def f(x, *y, z=1):\n    secret = 1\n    return secret"])
        == "def f(x, *y, z=1):"
    )
    assert build_starter(["f"], ["no python(", "def g(): pass"]) == "def f(...):"
    queue = (
        "class Queue:\n    def __init__(self): self.a = []\n    def _hidden(self): pass\n    def "
        "pop(self): return 1"
    )
    assert (
        build_starter(["Queue"], [queue])
        == "class Queue:\n    def __init__(self):\n    def pop(self):"
    )
