"""What crosses between tests with asserts and the program, and what no program can pass off."""

import tomllib
from pathlib import Path

import pytest

from verl_pipeline.grading import AssertTest, Problem, Verdict, grade

pytestmark = pytest.mark.timeout(120)

CASES = tomllib.loads(Path(__file__).with_name("channel_cases.toml").read_text())
VECTOR = """
class Vector:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __eq__(self, other):
        return isinstance(other, Vector) and (self.x, self.y) == (other.x, other.y)
    def __hash__(self):
        return hash((self.x, self.y))
    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)
    def __mul__(self, factor):
        return Vector(self.x * factor, self.y * factor)
    __rmul__ = __mul__
    def __iadd__(self, other):
        self.x += other.x
        self.y += other.y
        return self
    def __neg__(self):
        return self * -1
    def __lt__(self, other):
        return (self.x, self.y) < (other.x, other.y)
    def __iter__(self):
        return iter((self.x, self.y))
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return (self.x, self.y)[index]
    def __contains__(self, item):
        return item in (self.x, self.y)
    def __call__(self, z):
        return self.x + z
    def __repr__(self):
        return f'Vector({self.x}, {self.y})'
    def __abs__(self):
        return (self.x ** 2 + self.y ** 2) ** 0.5
    def __bool__(self):
        return bool(self.x or self.y)
    def norm(self):
        return abs(self)
    @classmethod
    def zero(cls):
        return cls(0, 0)
    @property
    def sum(self):
        return self.x + self.y
"""
# Values, as the tests and the program write them: a function returns one, another receives it.
LIBRARY_VALUES = [
    "fractions.Fraction(1, 3)",
    "decimal.Decimal('0.10')",
    "datetime.date(2024, 2, 29)",
    "datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)",
    "datetime.time(1, 2, fold=1)",
    "datetime.timedelta(days=-1, microseconds=5)",
    "collections.deque([1, [2]], 5)",
    "collections.Counter('abca')",
    "collections.OrderedDict([(1, 2), ('1', 3)])",
    "collections.defaultdict(list, {1: [2]})",
    "bytearray(b'ab')",
    "array.array('i', [1, 2])",
    "re.compile('a+', re.I)",
    "pathlib.PurePosixPath('/a/b')",
    "uuid.UUID(int=5)",
    "slice(1, None, 2)",
    "types.SimpleNamespace(a=1, b=[2])",
    "{1: 'a', '1': 'b', None: 'c', 2.5: 'd', (1, 2): 'e'}",
    "10 ** 5000",
    "[..., NotImplemented, type(None), fractions.Fraction, ValueError]",
]
IMPORTS = (
    "import array, collections, datetime, decimal, fractions, pathlib, re, types, uuid, io, math\n"
)


def grade_asserts(sandbox, tests, program, *names, objects=True, prelude=""):
    test = AssertTest(IMPORTS + tests, names, objects=objects)
    problem = Problem("p", "test", (test,), time_s=4.0, prelude=prelude)
    return grade(problem, program, sandbox)


@pytest.mark.parametrize("value", LIBRARY_VALUES)
def test_copies_of_library_values_cross_both_ways(sandbox, value):
    tests = f"expected = {value}\nfound = make()\nassert found == expected, found\n"
    tests += "assert type(found) is type(expected) and same(expected) and same(found)\n"
    tests += "assert not same(5)"
    program = f"{IMPORTS}def make():\n    return {value}\ndef same(x):\n"
    program += f"    return type(x) is type(({value})) and x == ({value})"
    for objects in (True, False):
        result = grade_asserts(sandbox, tests, program, "make", "same", objects=objects)
        assert result.verdict is Verdict.ACCEPTED, result
    assert not grade_asserts(sandbox, tests, f"{program} * 0", "make", "same").reward


@pytest.mark.parametrize("case", CASES["functions"], ids=range(len(CASES["functions"])))
def test_what_plain_python_allows_crosses(sandbox, case):
    result = grade_asserts(sandbox, case["tests"], case["program"], "f", "g", "LIMIT", "Empty")
    assert result.verdict is Verdict.ACCEPTED, (case["tests"], result)


@pytest.mark.parametrize(
    "tests",
    [
        "v = Vector(1, 2)\nassert v.x == 1 and v.norm() == 5 ** 0.5 and v.sum == 3 and v(4) == 5",
        "assert Vector(1, 2) == Vector(1, 2) and Vector(1, 2) != Vector(2, 1)",
        "assert Vector(1, 2) + Vector(3, 4) == Vector(4, 6)",
        "assert Vector(1, 2) * 3 == Vector(3, 6) == 3 * Vector(1, 2)",
        "assert -Vector(1, 2) * -1 == Vector(1, 2)",
        "v = w = Vector(1, 2)\nv += Vector(1, 1)\nassert v is w and w.x == 2",
        "assert list(Vector(1, 2)) == [1, 2] and len(Vector(1, 2)) == 2 and Vector(1, 2)[1] == 2",
        "x, y = Vector(1, 2)\nassert (x, y) == (1, 2) and 2 in Vector(1, 2)",
        "assert 3 not in Vector(1, 2)",
        "assert str(Vector(1, 2)) == repr(Vector(1, 2)) == f'{Vector(1, 2)}' == 'Vector(1, 2)'",
        "assert sorted([Vector(2, 0), Vector(1, 0)])[0] == Vector(1, 0) < Vector(3, 0)",
        "assert isinstance(Vector.zero(), Vector) and not isinstance(5, Vector)",
        "assert not Vector.zero() and Vector.zero().x == 0",
        "assert {Vector(1, 2): 'a'}[Vector(1, 2)] == 'a'",
        "assert len({Vector(1, 2), Vector(1, 2)}) == 1",
        "v = Vector(1, 2)\nv.x = 7\nassert v[0] == 7 and vars(v) == {'x': 7, 'y': 2}\ndel v.x\n"
        "assert not hasattr(v, 'x')",
        "import copy\nv = Vector(1, 2)\nw = copy.deepcopy(v)\nassert v == w and v is not w",
        "assert abs(Vector(3, 4)) == 5.0 and type(Vector(1, 2)).__name__ == 'Vector'",
        "assert not hasattr(Vector(1, 2), '__enter__') and callable(Vector(1, 2))",
        "assert issubclass(Vector, Vector) and Vector.__name__ == 'Vector'",
    ],
)  # fmt: skip
@pytest.mark.parametrize("objects", [True, False])
def test_objects_answer_like_those_of_plain_python(sandbox, tests, objects):
    if not objects and any(word in tests for word in ("+", "*", "zero", "copy")):
        pytest.skip("these return objects from functions")
    result = grade_asserts(sandbox, tests, VECTOR, "Vector", objects=objects)
    assert result.verdict is Verdict.ACCEPTED, result


@pytest.mark.parametrize("case", CASES["classes"], ids=range(len(CASES["classes"])))
def test_classes_of_the_program_may_be_used_like_others(sandbox, case):
    names = "Timer Color Dog Animal Node Count Point Stack f".split()
    result = grade_asserts(sandbox, case["tests"], case["program"], *names)
    assert result.verdict is Verdict.ACCEPTED, (case["tests"], result)


ALWAYS = """
class Always:
    def __init__(self, *a): pass
    def yes(self, *a): return True
    def zero(self, *a): return 0.0
    def me(self, *a): return self
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = yes
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 5
    __sub__ = __rsub__ = me
    __abs__ = __float__ = __round__ = __mod__ = zero
    __index__ = __int__ = lambda self: 0
    __bool__ = lambda self: False
    __getattr__ = lambda self, name: self.yes
def f(*a): return Always()
class g(Always): pass
Big = g
"""


@pytest.mark.parametrize(
    "tests",
    [
        "assert f(1) == 5",
        "assert 5 == f(1)",
        "assert not f(1) != 5",
        "assert f(1) < 1e-6",
        "assert abs(f(1) - 5) < 1e-6",
        "assert not (f(1) - 5)",
        "assert round(f(1) - 5, 3) == 0",
        "assert math.isclose(f(1) - 5, 0)",
        "assert f(1) % 5 == 0",
        "assert [f(1)] == [5]",
        "assert f(1) in (5, 6)",
        "assert {f(1)} == {5}",
        "assert g(1) == 5",
        "assert abs(g(1) - 5) < 1e-6",
        "assert Big(1) == 5",
        "assert abs(Big(1) - 5) < 1e-6",
        "import numpy as np\nassert np.allclose(f(1), 5)",
        "import numpy as np\nassert np.allclose(Big(1), [5, 6])",
        "assert str(f(1) - 5) == '0'",
        "x = f(1)\nx -= 5\nassert not x and abs(x) < 1",
        "assert -2 < f(1) - 5 < 2",
        "assert (f(1) - 5) in range(-1, 2)",
        "import pytest\nassert f(1) == pytest.approx(5)",
        "import pytest\nassert pytest.approx(5) == Big(1)",
    ],
)
@pytest.mark.parametrize("objects", [True, False])
def test_no_object_passes_for_a_value(sandbox, tests, objects):
    result = grade_asserts(sandbox, tests, ALWAYS, "f", "g", "Big", objects=objects)
    assert result.reward == 0.0, result


USED = """
import functools
class Quiet:
    def __init__(self): self.items = []
    def __enter__(self): return self
    def __exit__(self, kind, error, tb):
        return kind is not None and issubclass(kind, ZeroDivisionError)
    def put(self, item): self.items.append(item)
    def fail(self): return 1 / 0
Renamed = Quiet
@functools.lru_cache
def f(x): return x + 1
def g(items): return len(items)
"""


@pytest.mark.parametrize(
    "tests",
    [
        "with Quiet():\n    1 / 0",
        "with Quiet() as quiet:\n    quiet.put(1)\n    1 / 0\nassert quiet.items == [1]",
        "with Quiet() as quiet:\n    quiet.fail()",
        "with Quiet() as quiet:\n    rows = {}\n    rows[1 // 0]\nassert not quiet.items",
        "quiet = Renamed()\nquiet.put(5)\nassert quiet.items == [5]",
        "f(1), f(1)\nassert f.cache_info()[0] == 1\nf.cache_clear()\nassert not f.cache_info()[0]",
        "import numpy as np\nassert g(np.array([None, 'a', [1]], dtype=object)) == 3",
        "import numpy as np\nassert f(np.longdouble(1.5)) == 2.5",
    ],
)
@pytest.mark.parametrize("objects", [True, False])
def test_what_looks_like_an_attack_is_allowed_to_right_programs(sandbox, tests, objects):
    names = ("Quiet", "Renamed", "f", "g")
    result = grade_asserts(sandbox, tests, USED, *names, objects=objects)
    assert result.verdict is Verdict.ACCEPTED, result


@pytest.mark.parametrize(
    "tests",
    [
        "import threading\nf(threading.Lock())",
        "import sys\nf(sys)",
        "import sys\nf([{1: sys._getframe()}])",
        "import numpy as np\nf(np.array([object()]))",
        "import unittest.mock\nf(unittest.mock.patch)\nf(object())",
        "class Mine(Stack):\n    pass",
    ],
)
def test_values_of_the_tests_that_cannot_cross_are_infrastructure(sandbox, tests):
    program = "def f(x):\n    return x\nclass Stack:\n    pass"
    result = grade_asserts(sandbox, f"{tests}\nassert True", program, "f", "Stack")
    assert result.verdict is Verdict.INFRASTRUCTURE and "cannot cross" in result.reason, result


PRELUDE = """
class Node:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
"""
SLOTTED = """
class Node:
    __slots__ = 'val', 'next'
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
"""


@pytest.mark.parametrize("own_class", ["", SLOTTED])
@pytest.mark.parametrize("case", CASES["records"], ids=range(len(CASES["records"])))
def test_records_keep_identity_and_cycles(sandbox, case, own_class):
    program = own_class + case["program"]
    result = grade_asserts(sandbox, case["tests"], program, "f", objects=False, prelude=PRELUDE)
    assert result.verdict is Verdict.ACCEPTED, (case["tests"], result)


def test_large_values_cross(sandbox):
    tests = "found = f(1_500_000)\nassert found == list(range(1_500_000)) and f(found) == 1_500_000"
    program = "def f(x):\n    return len(x) if isinstance(x, list) else list(range(x))"
    test = AssertTest(tests, ("f",))
    result = grade(Problem("p", "test", (test,)), program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result
