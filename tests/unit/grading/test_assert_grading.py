"""Assert-style tests: what crosses between tests and program, and who decides the verdict."""

import pytest

from tests.helpers.grading_problems import make_assert_problem
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.grading.readers import read_humaneval, read_kodcode

pytestmark = pytest.mark.timeout(120)
CHECK_TWICE = """
def check(f):
    assert f(1) == 2
    assert f(n=2) == 4
check(twice)
"""


@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("def twice(n):\n    return 2 * n", Verdict.ACCEPTED, ""),
        ("def twice(n):\n    return 2", Verdict.WRONG_ANSWER, "AssertionError"),
        ("def twice(n):\n    return 1 / 0", Verdict.RUNTIME_ERROR, "ZeroDivisionError"),
        ("def twice(n):\n    while True: pass", Verdict.TIME_LIMIT, "CPU time"),
        (
            "import os\ndef twice(n):\n    os._exit(0)",
            Verdict.RUNTIME_ERROR,
            "ended before it had answered",
        ),
        ("def thrice(n):\n    return 2 * n", Verdict.RUNTIME_ERROR, "name 'twice' is not defined"),
        ("def twice(n)", Verdict.COMPILE_ERROR, "SyntaxError"),
    ],
)
def test_verdicts(sandbox, program, verdict, reason):
    result = grade(make_assert_problem(CHECK_TWICE, "twice"), program, sandbox)
    is_accepted = verdict is Verdict.ACCEPTED
    assert (result.verdict, result.failed_test) == (verdict, None if is_accepted else 0), result
    assert reason in result.reason and result.tier == "namespaces"
    assert (result.passed, result.reward) == ((1, 1.0) if is_accepted else (0, 0.0))


LIST_NODE = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
"""
CHECK_REVERSE_AND_SORT = """
def check(f):
    found = f(ListNode(1, ListNode(2)))
    assert (found.val, found.next.val) == (2, 1)
check(Solution().reverse)
numbers = [3, 1, 2]
assert Solution().sort(numbers) is None
assert numbers == [1, 2, 3]
"""
REVERSES_AND_SORTS = """
class Solution:
    def reverse(self, head):
        before = None
        while head:
            head.next, before, head = before, head, head.next
        return before
    def sort(self, numbers):
        numbers.sort()
"""


def test_records_cross_and_lists_are_changed_in_place(sandbox):
    problem = make_assert_problem(CHECK_REVERSE_AND_SORT, "Solution", prelude=LIST_NODE)
    assert grade(problem, REVERSES_AND_SORTS, sandbox).verdict is Verdict.ACCEPTED


KODCODE_TESTS = """
import pytest
from solution import root

def test_root():
    assert root(4.0) == pytest.approx(2.0)
    with pytest.raises(ValueError, match='negative'):
        root(-1)
"""


def test_tests_of_kodcode_may_use_pytest(sandbox):
    problem = read_kodcode(KODCODE_TESTS, name="root", time_s=2.0)
    right = "def root(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x ** 0.5"
    wrong = "def root(x):\n    return x ** 0.5"
    assert grade(problem, right, sandbox).verdict is Verdict.ACCEPTED
    assert grade(problem, wrong, sandbox).verdict is Verdict.WRONG_ANSWER


SENDS_A_BAD_ANSWER = """
import os, struct
def f(x):
    os.write(3, struct.pack('<Q', 2) + b'[]')
    os._exit(0)
"""
RETURNS_AN_OBJECT = """
class Seven:
    def issubset(self, other):
        return True
def f(x):
    return Seven()
"""


RETURNS_A_DEEP_KEY = """
def f(x):
    key = ()
    for _ in range(200):
        key = (key,)
    return {key}
"""


@pytest.mark.parametrize(
    "tests",
    [
        "try:\n    f(1)\nexcept:\n    pass\n",  # a bare except catches BaseException
        "try:\n    f(1)\nexcept Exception:\n    pass\n",
        "assert not list(zip(map(f, [1, 2]), [5, 6]))",  # StopIteration would end the loop
    ],
)
@pytest.mark.parametrize(
    "program",
    [
        "import os\ndef f(x):\n    os._exit(0)",
        RETURNS_A_DEEP_KEY,
        SENDS_A_BAD_ANSWER,
        RETURNS_AN_OBJECT,
    ],
)
def test_a_missing_answer_decides_even_if_the_tests_catch_the_error(sandbox, tests, program):
    result = grade(make_assert_problem(tests, "f"), program, sandbox)
    assert result.verdict in (Verdict.RUNTIME_ERROR, Verdict.WRONG_ANSWER), result


# As HumanEval+ publishes its tests.
HUMANEVAL_PLUS_TESTS = """
import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    return isinstance(x, np.ndarray) and x.dtype in (np.float64, np.float32)

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match

def check(candidate):
    inputs = [[3.0], [1.0], [0.1]]
    results = [1.5, 0.5, 0.05]
    for inp, exp in zip(inputs, results):
        assertion(candidate(*inp), exp, 0)
"""


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        ("x / 2", Verdict.ACCEPTED),
        ("x / 2 + 1e-9", Verdict.ACCEPTED),
        ("x / 2 + 1e-3", Verdict.WRONG_ANSWER),
        ("[]", Verdict.WRONG_ANSWER),
        ("[[], []]", Verdict.WRONG_ANSWER),
        ("float('nan')", Verdict.WRONG_ANSWER),
        ("'0.5'", Verdict.WRONG_ANSWER),
        ("None", Verdict.WRONG_ANSWER),
    ],
)
def test_the_tolerance_of_humaneval_plus(sandbox, returned, verdict):
    row = {
        "task_id": "HumanEval/2",
        "prompt": "def halve(x):\n",
        "entry_point": "halve",
        "test": HUMANEVAL_PLUS_TESTS,
    }
    problem = read_humaneval(row, source="humanevalplus", time_s=2.0)
    result = grade(problem, f"def halve(x):\n    return {returned}", sandbox)
    assert result.verdict is verdict, result


RAISES_THE_FIRST_ERROR = """
errors = []
for x in (1, 2):
    try:
        f(x)
    except Exception as error:
        errors.append(error)
if errors:
    raise errors[0]
"""


def test_an_import_error_of_the_program_is_its_own(sandbox):
    program = "def f(x):\n    raise ImportError('x') if x == 1 else ValueError('y')"
    problem = make_assert_problem(RAISES_THE_FIRST_ERROR, "f")
    assert grade(problem, program, sandbox).verdict is Verdict.RUNTIME_ERROR


RETURNS_A_NAMED_TUPLE = """
from typing import NamedTuple
class Q(NamedTuple):
    a: int = 1
    b: int = 2
def f():
    return Q()
"""


@pytest.mark.parametrize(
    ("tests", "program"),
    [
        ("assert f() == (1, 2)", RETURNS_A_NAMED_TUPLE),
        (
            "assert f() == 1",
            "from enum import IntEnum\nclass Q(IntEnum):\n    A = 1\ndef f():\n    return Q.A",
        ),
        ("assert f() == {1: 2}", "class D(dict):\n    pass\ndef f():\n    return D({1: 2})"),
        (
            "try:\n    f()\nexcept KeyError as error:\n    assert error.args == ('k',)",
            "def f():\n    return {}['k']",
        ),
        ("try:\n    f()\nexcept UnicodeError:\n    pass", "def f():\n    return b'\\xff'.decode()"),
    ],
)
def test_values_and_errors_of_the_programs_own_classes_cross(sandbox, tests, program):
    result = grade(make_assert_problem(tests, "f"), program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result


def test_classes_of_the_prelude_can_be_pickled(sandbox):
    prelude = "import pickle\nclass Node:\n    def __init__(self, v):\n        self.v = v"
    problem = make_assert_problem("assert f(Node(3)).v == 3", "f", prelude=prelude)
    program = "def f(node):\n    return pickle.loads(pickle.dumps(node))"
    assert grade(problem, program, sandbox).verdict is Verdict.ACCEPTED


def test_stop_iteration_in_the_program_ends_no_loop_of_the_tests(sandbox):
    tests = "for found, wanted in zip(map(f, [1, 2]), [1, 2]):\n    assert found == wanted"
    result = grade(make_assert_problem(tests, "f"), "def f(x):\n    raise StopIteration", sandbox)
    assert result.verdict is Verdict.RUNTIME_ERROR, result


@pytest.mark.parametrize(
    ("tests", "program"),
    [
        ("assert list(f(3)) == [0, 1, 2]", "def f(n):\n    yield from range(n)"),
        (
            "assert next(f(3)) == 0 and next(zip(f(1), 'a')) == (0, 'a')",
            "def f(n):\n    return iter(range(n))",
        ),
        ("assert f(2) == range(2)", "def f(n):\n    return range(n)"),
        ("assert f(1j, int) == (1 - 1j, int)", "def f(z, kind):\n    return 1 - z, kind"),
        ("assert f('ab') and not f('b')", "import re\ndef f(s):\n    return re.match('a', s)"),
        (
            "s = Stack()\ns.push(1)\nassert s.pop() == 1 and f([s, Stack()]) == 2",
            "class Stack(list):\n    push = list.append\nf = len",
        ),
    ],
)
def test_a_function_may_return_iterators_types_and_objects(sandbox, tests, program):
    result = grade(make_assert_problem(tests, "f", "Stack"), program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result
