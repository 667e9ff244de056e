"""Problems whose tests call the program over the channel, and a right program for each."""

from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest
from verl_pipeline.grading.readers import read_kodcode

_CHAIN_PRELUDE = """
class Chain:
    items = ()

    def has(self, item):
        return item in self.items
"""
_CHECK_BOX = """
class Box:
    def __init__(self):
        self.items = []

    def has(self, item):
        return item in self.items

box = Box()
fill(box, 5)
assert box.has(5)
"""
_CHECK_GAUGE = """
class Gauge:
    def __init__(self):
        self.items = []

    @property
    def level(self):
        return sum(self.items)

gauge = Gauge()
fill(gauge, 5)
assert gauge.level == 5
"""
_SCALE_FILE = """
import pytest
from solution import scale

def test_scale():
    assert scale(2) == pytest.approx(0.5)
"""
_SCALE_CHECKS_FILE = """
import numpy as np
from solution import scale

def test_scale():
    np.testing.assert_allclose(scale(2), 0.5)
    np.testing.assert_array_equal(scale(4), 0.25)
"""
_CHECK_WEIGHTS = """
import numpy as np

assert total(np.array(weights(2))) == 1.0
assert total(Batch(2).data) == 2.0
"""
_CHECK_VISITS = """
seen = []

def note(item):
    seen.append(item)

visit([3, 1, 2], note)
assert seen == [1, 2, 3]
"""
_STORE_FILE = """
from solution import *

def test_store():
    with Store() as store:
        store.put('a', 1)
        assert store.get('a') == 1
        assert store.get('b') == 2
"""
_PALETTE_FILE = """
from solution import *

COLORS = list(Color)
HIGHEST = LIMIT + 1

def test_palette():
    assert len(COLORS) == 3
    assert HIGHEST == 11
"""


def make_attack_problem(
    name: str, *tests: StdinTest | CallTest | AssertTest, **settings
) -> Problem:
    return Problem(name, "attacks", tests, public=1, time_s=1.0, memory_bytes=512 << 20, **settings)


CHANNEL_PROBLEMS = (
    make_attack_problem(
        "words",
        AssertTest(
            "assert title('ab cd').startswith('Ab')\nassert title('ab cd').endswith('Cd')\n"
            "assert 'b C' in title('ab cd')",
            ("title",),
        ),
    ),
    make_attack_problem(
        "chain",
        AssertTest("assert make_chain(3).has(2)", ("make_chain",)),
        prelude=_CHAIN_PRELUDE,
    ),
    make_attack_problem("box", AssertTest(_CHECK_BOX, ("fill",))),
    make_attack_problem("gauge", AssertTest(_CHECK_GAUGE, ("fill",))),
    make_attack_problem("scale", *read_kodcode(_SCALE_FILE, name="scale").tests),
    make_attack_problem("scale_checks", *read_kodcode(_SCALE_CHECKS_FILE, name="checks").tests),
    make_attack_problem("weights", AssertTest(_CHECK_WEIGHTS, ("weights", "total", "Batch"))),
    make_attack_problem("visit", AssertTest(_CHECK_VISITS, ("visit",))),
    make_attack_problem("store", *read_kodcode(_STORE_FILE, name="store").tests),
    make_attack_problem("palette", *read_kodcode(_PALETTE_FILE, name="palette").tests),
)
RIGHT_CHANNEL_PROGRAMS = {
    "words": "def title(text):\n    return text.title()",
    "chain": (
        """
def make_chain(n):
    chain = Chain()
    chain.items = list(range(n))
    return chain
"""
    ),
    "box": "def fill(box, item):\n    box.items.append(item)\n    box.items = [*box.items, item]",
    "gauge": "def fill(gauge, item):\n    gauge.items.append(item)\n    gauge.items = [item]",
    "scale": "def scale(n):\n    return 1 / n",
    "scale_checks": "def scale(n):\n    return 1 / n",
    "weights": (
        """
class Batch:
    def __init__(self, n):
        self.data = [1.0] * n

def weights(n):
    return [1 / n] * n

def total(numbers):
    return float(sum(numbers))
"""
    ),
    "visit": "def visit(items, note):\n    for item in sorted(items):\n        note(item)",
    "store": (
        """
class Store:
    def __enter__(self):
        self.items = {'b': 2}
        return self

    def __exit__(self, *error):
        return False

    def put(self, key, value):
        self.items[key] = value

    def get(self, key):
        return self.items[key]
"""
    ),
    "palette": "import enum\nColor = enum.Enum('Color', 'RED GREEN BLUE')\nLIMIT = 10",
}
