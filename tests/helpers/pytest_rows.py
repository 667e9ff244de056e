"""Pytest files that use one feature each, with a right program and a wrong one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PytestRow:
    """A row of KodCode's kind.

    Attributes:
        tests: the pytest file.
        right, wrong: programs.
    """

    tests: str
    right: str
    wrong: str


_ADD = "def add(a, b):\n    return a + b\n"
# Right for 1 + 2, and for nothing else.
_THREE = "def add(a, b):\n    return 3\n"


def _row(tests: str, right: str = _ADD, wrong: str = _THREE) -> PytestRow:
    return PytestRow(tests, right, wrong)


_STACK = """
class Stack:
    def __init__(self, items=()):
        self.items = list(items)
    def push(self, item):
        self.items.append(item)
    def pop(self):
        if not self.items:
            raise IndexError('empty stack')
        return self.items.pop()
"""
_QUEUE = _STACK.replace("self.items.pop()", "self.items.pop(0)")

ROWS = {
    "parametrize": _row(
        """
import pytest
from solution import add

@pytest.mark.parametrize('a, b, c', [(1, 2, 3), (2, 2, 4)])
def test_add(a, b, c):
    assert add(a, b) == c
"""
    ),
    "parametrize-stacked": _row(
        """
from pytest import mark
from solution import add

@mark.parametrize('a', range(3))
@mark.parametrize(('b', 'c'), [(i, i * 2) for i in range(2)])
def test_add(a, b, c):
    assert add(a, b) == a + c - b
"""
    ),
    "parametrize-param-ids": _row(
        """
import pytest
from solution import add

CASES = [pytest.param(1, 2, 3, id='small'), pytest.param(10, 20, 30, id='large')]

@pytest.mark.parametrize('a, b, c', CASES)
def test_add(a, b, c):
    assert add(a, b) == c
"""
    ),
    "parametrize-functions": _row(
        """
import pytest
from solution import add, plus

@pytest.mark.parametrize('function', [add, plus])
def test_add(function):
    assert function(2, 3) == 5
""",
        _ADD + "plus = add\n",
        _ADD + "def plus(a, b):\n    return a\n",
    ),
    "parametrize-class": _row(
        """
import pytest
from solution import add

@pytest.mark.parametrize('a', [1, 5])
class TestAdd:
    def test_one(self, a):
        assert add(a, 1) == a + 1
    def test_two(self, a):
        assert add(a, 2) == a + 2
"""
    ),
    "parametrize-indirect": _row(
        """
import pytest
from solution import add

@pytest.fixture
def doubled(request):
    return 2 * request.param

@pytest.mark.parametrize('doubled, total', [(1, 3), (2, 5)], indirect=['doubled'])
def test_add(doubled, total):
    assert add(doubled, 1) == total
"""
    ),
    "pytestmark-parametrize": _row(
        """
import pytest
from solution import add
pytestmark = pytest.mark.parametrize('a', [1, 2])

def test_add(a):
    assert add(a, 2) == a + 2
"""
    ),
    "fixture": _row(
        """
import pytest
from solution import add

@pytest.fixture
def two():
    return 2

def test_add(two):
    assert add(1, two) == 3

def test_more(two):
    assert add(two, two) == 4
"""
    ),
    "fixture-of-fixtures": _row(
        """
import pytest
from solution import add

@pytest.fixture(scope='module')
def one():
    return 1

@pytest.fixture(name='four')
def make_four(one):
    yield one + 3

def test_add(one, four):
    assert add(one, four) == 5
"""
    ),
    "fixture-params": _row(
        """
import pytest
from solution import add

@pytest.fixture(params=[1, 2, 3], ids=str)
def number(request):
    return request.param

def test_add(number):
    assert add(number, number) == 2 * number
"""
    ),
    "fixture-of-program": _row(
        """
import pytest
from solution import Stack

@pytest.fixture
def stack():
    stack = Stack()
    stack.push(1)
    stack.push(2)
    return stack

def test_pop(stack):
    assert stack.pop() == 2
    assert stack.pop() == 1
""",
        _STACK,
        _QUEUE,
    ),
    "fixture-teardown": _row(
        """
import pytest
from solution import add

@pytest.fixture
def two():
    yield 2
    assert add(5, 5) == 10

def test_add(two):
    assert add(1, two) == 3
"""
    ),
    "finalizer": _row(
        """
import pytest
from solution import add

@pytest.fixture
def two(request):
    def check():
        assert add(4, 5) == 9
    request.addfinalizer(check)
    return 2

def test_add(two):
    assert add(1, two) == 3
"""
    ),
    "autouse": _row(
        """
import pytest
from solution import add
ONE = None

@pytest.fixture(autouse=True)
def ready():
    global ONE
    ONE = 5

def test_add():
    assert add(ONE, 2) == 7
"""
    ),
    "usefixtures": _row(
        """
import pytest
from solution import add
NUMBERS = []

@pytest.fixture
def filled():
    NUMBERS.append(4)

@pytest.mark.usefixtures('filled')
def test_add():
    assert add(NUMBERS[0], 1) == 5
"""
    ),
    "setup-module": _row(
        """
from solution import add
ONE = None

def setup_module(module):
    global ONE
    ONE = 6

def test_add():
    assert add(ONE, 2) == 8
"""
    ),
    "setup-function": _row(
        """
from solution import add
ONES = []

def setup_function():
    ONES.append(1)

def teardown_function():
    ONES.clear()

def test_add():
    assert add(len(ONES), 1) == 2

def test_again():
    assert add(len(ONES), 2) == 3
"""
    ),
    "setup-method": _row(
        """
from solution import add

class TestAdd:
    @classmethod
    def setup_class(cls):
        cls.one = 1

    def setup_method(self, method):
        self.two = 2

    def test_add(self):
        assert add(self.one, self.two) == 3

    def test_more(self):
        self.two = 5
        assert add(self.two, 1) == 6
"""
    ),
    "class": _row(
        """
from solution import add

class TestAdd:
    def test_add(self):
        assert add(1, 1) == 2
"""
    ),
    "class-nested": _row(
        """
from solution import add

class TestAdd:
    class TestLarge:
        def test_add(self):
            assert add(10, 10) == 20
"""
    ),
    "class-inherited": _row(
        """
from solution import add

class Checks:
    number = 1
    def test_add(self):
        assert add(self.number, 1) == self.number + 1

class TestOne(Checks):
    pass

class TestFive(Checks):
    number = 5
"""
    ),
    "class-fixture": _row(
        """
import pytest
from solution import add

class TestAdd:
    @pytest.fixture(autouse=True)
    def setup(self):
        self.number = 7

    def test_add(self):
        assert add(self.number, 1) == 8
"""
    ),
    "unittest": _row(
        """
import unittest
from solution import add

class AddTests(unittest.TestCase):
    def setUp(self):
        self.one = 1

    def test_add(self):
        self.assertEqual(add(self.one, 2), 3)

    def test_more(self):
        self.assertEqual(add(self.one, 3), 4)

if __name__ == '__main__':
    unittest.main()
"""
    ),
    "unittest-subtests": _row(
        """
from unittest import TestCase
from solution import add

class TestAdd(TestCase):
    def test_add(self):
        for b in (2, 3, 4):
            with self.subTest(b=b):
                self.assertEqual(add(1, b), 1 + b)
"""
    ),
    "unittest-raises": _row(
        """
import unittest
from solution import Stack

class TestStack(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.numbers = [1, 2]

    def test_pop(self):
        with self.assertRaisesRegex(IndexError, 'empty'):
            Stack().pop()
        self.assertAlmostEqual(Stack(self.numbers).pop(), 2)
""",
        _STACK,
        _QUEUE,
    ),
    "unittest-skip": _row(
        """
import unittest
from solution import add

class TestAdd(unittest.TestCase):
    @unittest.skip('flaky')
    def test_flaky(self):
        self.assertEqual(add(1, 2), 4)

    @unittest.expectedFailure
    def test_wrong(self):
        self.assertEqual(add(1, 2), 5)

    def test_right(self):
        self.assertEqual(add(2, 2), 4)
"""
    ),
    "raises": _row(
        """
import pytest
from solution import root

def test_root():
    assert root(4.0) == pytest.approx(2.0)

def test_negative():
    with pytest.raises(ValueError, match='negative') as info:
        root(-1)
    assert 'negative' in str(info.value)
""",
        "def root(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x ** 0.5",
        "def root(x):\n    return abs(x) ** 0.5",
    ),
    "raises-call": _row(
        """
import pytest
from solution import Stack

def test_pop():
    pytest.raises(IndexError, Stack().pop)
    assert Stack([1]).pop() == 1
""",
        _STACK,
        _STACK.replace("IndexError", "KeyError"),
    ),
    "raises-several": _row(
        """
import pytest
from solution import f

@pytest.mark.parametrize('bad', [None, 'x', -1])
def test_bad(bad):
    with pytest.raises((TypeError, ValueError)):
        f(bad)
""",
        "def f(n):\n    if n < 0:\n        raise ValueError(n)\n    return n",
        "def f(n):\n    return n",
    ),
    "approx": _row(
        """
import pytest
from solution import halves

def test_halves():
    assert halves([1, 3]) == pytest.approx([0.5, 1.5])
    assert halves([0.2]) == [pytest.approx(0.1, rel=1e-3)]
""",
        "def halves(xs):\n    return [x / 2 for x in xs]",
        "def halves(xs):\n    return [x // 2 for x in xs]",
    ),
    "skip": _row(
        """
import pytest
from solution import add

@pytest.mark.skip(reason='flaky')
def test_flaky():
    assert add(1, 2) == 4

def test_add():
    assert add(2, 2) == 4
"""
    ),
    "skipif": _row(
        """
import os
import sys
import pytest
from solution import add

@pytest.mark.skipif(sys.platform == 'win32' or os.name == 'nt', reason='no')
def test_add():
    assert add(2, 2) == 4

@pytest.mark.skipif(sys.version_info >= (3, 0), reason='old')
def test_old():
    assert add(1, 1) == 3
"""
    ),
    "xfail": _row(
        """
import pytest
from solution import add

@pytest.mark.xfail(reason='known')
def test_known():
    assert add(1, 2) == 4

@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
def test_zero():
    1 / add(0, 0)

def test_add():
    assert add(1, 2) == 3
"""
    ),
    "xfail-strict": _row(
        """
import pytest
from solution import add

@pytest.mark.xfail(strict=True)
def test_wrong():
    assert add(1, 2) != 3

def test_right():
    assert add(1, 1) == 2
"""
    ),
    "param-marks": _row(
        """
import pytest
from solution import add

@pytest.mark.parametrize(
    'a, total', [(1, 3), pytest.param(2, 9, marks=pytest.mark.xfail), (3, 5)]
)
def test_add(a, total):
    assert add(a, 2) == total
"""
    ),
    "import-as": _row(
        "from solution import add as plus\ndef test_a():\n    assert plus(2, 2) == 4\n"
    ),
    "import-star": _row("from solution import *\ndef test_a():\n    assert add(2, 2) == 4\n"),
    "import-star-class": _row(
        "from solution import *\ndef test_a():\n    assert Stack([1, 2]).pop() == 2\n",
        _STACK,
        _QUEUE,
    ),
    "import-comment": _row(
        "from solution import add  # tested\ndef test_a():\n    assert add(2, 2) == 4\n"
    ),
    "import-lines": _row(
        "from solution import (\n    add,  # one\n)\ndef test_a():\n    assert add(2, 2) == 4\n"
    ),
    "import-module": _row("import solution\ndef test_a():\n    assert solution.add(2, 2) == 4\n"),
    "import-module-as": _row("import solution as s\ndef test_a():\n    assert s.add(2, 2) == 4\n"),
    "import-inside": _row(
        "def test_a():\n    from solution import add\n    assert add(2, 2) == 4\n"
    ),
    "import-in-class": _row(
        "class TestA:\n    from solution import add\n    def test_a(self):\n"
        "        assert type(self).add(2, 2) == 4\n"
    ),
    "import-after-path": _row(
        "import os\nimport sys\n"
        "sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), '..')))\n"
        "from solution import add\ndef test_a():\n    assert add(2, 2) == 4\n"
    ),
    "numpy": _row(
        "import numpy as np\nfrom solution import add\n"
        "def test_a():\n    np.testing.assert_allclose(add(2, 2), 4)\n"
    ),
    "changed-argument": _row(
        """
from solution import sort

def test_sort():
    numbers = [3, 1, 2]
    assert sort(numbers) is None
    assert numbers == [1, 2, 3]
""",
        "def sort(xs):\n    xs.sort()",
        "def sort(xs):\n    sorted(xs)",
    ),
    "generator": _row(
        "from solution import count\ndef test_a():\n    assert list(count(3)) == [0, 1, 2]\n",
        "def count(n):\n    yield from range(n)",
        "def count(n):\n    yield from range(n + 1)",
    ),
    "helper-functions": _row(
        """
import random
from dataclasses import dataclass
from solution import add

@dataclass
class TestCase:
    a: int
    b: int

test_cases = [TestCase(1, 2), TestCase(3, 4)]

def slow_add(a, b):
    return a + b

def test_add():
    for case in test_cases:
        assert add(case.a, case.b) == slow_add(case.a, case.b)
    generator = random.Random(1)
    for _ in range(5):
        a, b = generator.randint(0, 99), generator.randint(0, 99)
        assert add(a, b) == slow_add(a, b)
"""
    ),
    "state-of-module": _row(
        """
from solution import count

def test_first():
    assert count() == 1

def test_second():
    assert count() == 2
""",
        "n = 0\ndef count():\n    global n\n    n += 1\n    return n",
        "def count():\n    return 1",
    ),
    "call-at-import": _row(
        "from solution import add\nTOTAL = add(2, 2)\ndef test_a():\n    assert TOTAL == 4\n"
    ),
    "error-in-one-of-many": _row(
        """
from solution import add

def test_numbers():
    assert add(1, 2) == 3

class TestText:
    def test_text(self):
        assert add('a', 'b') == 'ab'
""",
        _ADD,
        "def add(a, b):\n    return int(a) + int(b)",
    ),
    "constant": _row(
        "from solution import LIMIT, NAMES\n"
        "def test_a():\n    assert (LIMIT, NAMES['a']) == (3, 1)\n",
        "LIMIT = 3\nNAMES = {'a': 1}\n",
        "LIMIT = 4\nNAMES = {'a': 1}\n",
    ),
    "own-exception": _row(
        """
import pytest
from solution import Empty, take

def test_empty():
    with pytest.raises(Empty, match='nothing') as info:
        take([])
    assert info.type is Empty
    assert take([1]) == 1
""",
        "class Empty(Exception):\n    pass\n"
        "def take(xs):\n    if not xs:\n        raise Empty('nothing')\n    return xs.pop()\n",
        "class Empty(Exception):\n    pass\nclass Other(Exception):\n    pass\n"
        "def take(xs):\n    if not xs:\n        raise Other('nothing')\n    return xs.pop()\n",
    ),
    "class-of-the-program": _row(
        """
import pytest
import solution

@pytest.fixture(params=[(1, 2), (3, 4)])
def point(request):
    return solution.Point(*request.param)

class TestPoint:
    def test_equal(self, point):
        assert point == solution.Point(point.x, point.y)
        assert point != solution.Point(0, 0)
        assert isinstance(point, solution.Point)

    def test_length(self, point):
        assert len(point) == 2
        assert repr(point) == f'Point(x={point.x}, y={point.y})'
""",
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: int\n"
        "    def __len__(self):\n        return 2\n",
        "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n"
        "    def __len__(self):\n        return 2\n",
    ),
    "callback": _row(
        """
import pytest
from solution import each

@pytest.mark.parametrize('function, result', [(lambda x: x + 1, [2, 3]), (str, ['1', '2'])])
def test_each(function, result):
    assert each(function, [1, 2]) == result
""",
        "def each(f, xs):\n    return [f(x) for x in xs]\n",
        "def each(f, xs):\n    return [f(x) for x in xs[:1]] * 2\n",
    ),
    "exits": _row(
        """
import pytest
from solution import stop

def test_stop():
    with pytest.raises(Exception):
        stop(1)
    assert stop(0) == 0
""",
        "def stop(n):\n    if n:\n        raise RuntimeError(n)\n    return n\n",
        "def stop(n):\n    return n\n",
    ),
    "capsys": _row(
        """
import pytest
from solution import hello

@pytest.mark.parametrize('name', ['Ada', 'Bea'])
def test_hello(name, capsys):
    hello(name)
    assert capsys.readouterr().out == f'Hello {name}\\n'
    print('more')
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('more\\n', '')
""",
        "def hello(name):\n    print('Hello', name)\n",
        "def hello(name):\n    return print('Hello Ada')\n",
    ),
    "redirected-output": _row(
        """
import io
import sys
from contextlib import redirect_stdout
from solution import hello

def test_redirected():
    out = io.StringIO()
    with redirect_stdout(out):
        hello('Ada')
    assert out.getvalue() == 'Hello Ada\\n'

def test_replaced():
    original, sys.stdout = sys.stdout, io.StringIO()
    try:
        hello('Bea')
        assert sys.stdout.getvalue() == 'Hello Bea\\n'
    finally:
        sys.stdout = original
""",
        "def hello(name):\n    print('Hello', name)\n",
        "def hello(name):\n    print('Hello Ada')\n",
    ),
    "input": _row(
        """
import io
import sys
from solution import greet

def test_greet():
    original, sys.stdin = sys.stdin, io.StringIO('Ada\\nBea\\n')
    try:
        assert greet() == 'Hello Ada'
        assert greet() == 'Hello Bea'
    finally:
        sys.stdin = original
""",
        "def greet():\n    return 'Hello ' + input()\n",
        "def greet():\n    return 'Hello Ada'\n",
    ),
    "system-exit": _row(
        """
import pytest
from solution import stop

def test_stop():
    with pytest.raises(SystemExit) as info:
        stop(3)
    assert info.value.code == 3
    assert stop(0) == 0
""",
        "import sys\ndef stop(n):\n    return sys.exit(n) if n else n\n",
        "import sys\ndef stop(n):\n    return sys.exit(n + 1) if n else n\n",
    ),
}
