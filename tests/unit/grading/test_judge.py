"""Verdicts of whole gradings, in the real sandbox."""

import resource
from dataclasses import replace

import pytest

from verl_pipeline.grading import (
    AssertTest,
    CallTest,
    Comparison,
    Problem,
    StdinTest,
    Verdict,
    grade,
    grade_response,
)
from verl_pipeline.grading.readers import read_humaneval, read_kodcode
from verl_pipeline.sandbox import Sandbox, SandboxError
from verl_pipeline.sandbox.prelude import IMPORTS

pytestmark = pytest.mark.timeout(120)
ADD = Problem(
    "add", "test", (CallTest((1, 2), 3), CallTest((5, 5), 10)), entry_point="add", time_s=1.0
)
LENT = replace(ADD, prelude=IMPORTS)
ECHO = Problem(
    "echo",
    "test",
    (StdinTest("a\n", "a\n"), StdinTest("b\n", "b\n"), StdinTest("c\n", "c\n")),
    time_s=1.0,
)
CHECK = Problem(
    "check",
    "test",
    (
        AssertTest(
            "def check(f):\n    assert f(1) == 2\n    assert f(n=2) == 4\ncheck(twice)", ("twice",)
        ),
    ),
    time_s=1.0,
)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1) as made:
        yield made


@pytest.mark.parametrize(
    ("problem", "program", "verdict", "failed", "reason"),
    [
        (ADD, "def add(a, b):\n    return a + b", Verdict.ACCEPTED, None, ""),
        (
            ADD,
            "class Solution:\n    def add(self, a, b):\n        return a + b",
            Verdict.ACCEPTED,
            None,
            "",
        ),
        (ADD, "def add(a, b):\n    return 3", Verdict.WRONG_ANSWER, 1, "another output"),
        (ADD, "def add(a, b):\n    return a + c", Verdict.RUNTIME_ERROR, 0, "NameError"),
        (ADD, "def other(): pass", Verdict.RUNTIME_ERROR, 0, "no function 'add'"),
        (ADD, "def add(a, b)\n    return 1", Verdict.COMPILE_ERROR, 0, "SyntaxError"),
        (
            ADD,
            "def add(a, b):\n    return object()",
            Verdict.WRONG_ANSWER,
            0,
            "a value of type builtins.object",
        ),
        (ADD, "def add(a, b):\n    while True: pass", Verdict.TIME_LIMIT, 0, "CPU time"),
        (ADD, "import sys\ndef add(a, b):\n    sys.exit(0)", Verdict.RUNTIME_ERROR, 0, ""),
        (
            ADD,
            "import os\ndef add(a, b):\n    os._exit(0)",
            Verdict.WRONG_ANSWER,
            0,
            "nothing that can be compared",
        ),
        # What the imports in front lend has the name that is asked for: it is not the program's.
        (LENT, "def nothing(): pass", Verdict.RUNTIME_ERROR, 0, "no function 'add'"),
        (LENT, "x = add(1, 2)", Verdict.RUNTIME_ERROR, 0, "no function 'add'"),
        (
            LENT,
            "class Solution:\n    def add(self, a, b):\n        return 77",
            Verdict.WRONG_ANSWER,
            0,
            "",
        ),
        (
            LENT,
            "class Solution:\n    def add(self, a, b):\n        return add(a, b)",
            Verdict.ACCEPTED,
            None,
            "",
        ),
        (LENT, "def add(a, b):\n    return a + b", Verdict.ACCEPTED, None, ""),
        (LENT, "from operator import add", Verdict.ACCEPTED, None, ""),
        (LENT, "import operator\nadd = operator.add", Verdict.ACCEPTED, None, ""),
        (ECHO, "print(input())", Verdict.ACCEPTED, None, ""),
        (ECHO, "print('a')", Verdict.WRONG_ANSWER, 1, "another output"),
        (
            ECHO,
            "x = input()\nprint(x)\nassert x != 'c'",
            Verdict.RUNTIME_ERROR,
            2,
            "AssertionError",
        ),
        (ECHO, "x = [0] * 10**12", Verdict.MEMORY_LIMIT, 0, "memory"),
        (CHECK, "def twice(n):\n    return 2 * n", Verdict.ACCEPTED, None, ""),
        (CHECK, "def twice(n):\n    return 2", Verdict.WRONG_ANSWER, 0, "AssertionError"),
        (CHECK, "def twice(n):\n    return 1 / 0", Verdict.RUNTIME_ERROR, 0, "ZeroDivisionError"),
        (CHECK, "def twice(n):\n    while True: pass", Verdict.TIME_LIMIT, 0, "CPU time"),
        (
            CHECK,
            "import os\ndef twice(n):\n    os._exit(0)",
            Verdict.RUNTIME_ERROR,
            0,
            "ended before it had answered",
        ),
        (
            CHECK,
            "def thrice(n):\n    return 2 * n",
            Verdict.RUNTIME_ERROR,
            0,
            "name 'twice' is not defined",
        ),
        (CHECK, "def twice(n)", Verdict.COMPILE_ERROR, 0, "SyntaxError"),
    ],
)
def test_verdicts(sandbox, problem, program, verdict, failed, reason):
    result = grade(problem, program, sandbox)
    assert (result.verdict, result.failed_test) == (verdict, failed), result
    assert reason in result.reason and result.tier == "namespaces"
    assert result.passed == (len(problem.tests) if verdict is Verdict.ACCEPTED else failed)
    assert result.reward == (1.0 if verdict is Verdict.ACCEPTED else 0.0)


def test_the_expected_output_is_in_no_reason(sandbox):
    problem = Problem("secret", "test", (StdinTest("", "correct horse battery"),), time_s=1.0)
    assert "horse" not in grade(problem, "print(1)", sandbox).reason


def test_keys_that_all_hash_alike_cost_the_judge_nothing(sandbox):
    collide = (
        "import json, os\nparts = [['s', 10**5]] + [['i', hex(n * (2**61 - 1))] for n in "
        "range(10**5)]\nos.write(3, json.dumps(parts).encode())\nos._exit(0)"
    )
    result = grade(ADD, collide, sandbox)
    assert result.verdict is Verdict.WRONG_ANSWER and "equal hashes" in result.reason
    pairs = Problem(
        "pairs", "test", (CallTest((), {1: "a", 2: {3, 4}}),), entry_point="pairs", time_s=1.0
    )
    assert (
        grade(pairs, "def pairs():\n    return {2: {4, 3}, 1: 'a'}", sandbox).verdict
        is Verdict.ACCEPTED
    )


def test_millions_of_lines_and_of_words_cost_the_judge_little(sandbox):
    for program in ("print('\\n' * (30 << 20) + 'a')", "print('a ' * (15 << 20))"):
        assert grade(ECHO, program, sandbox).verdict is Verdict.WRONG_ANSWER


def test_responses(sandbox):
    fence = "```python\nprint(input())\n```"
    assert (
        grade_response(ECHO, f"<think>{fence}</think> nothing", sandbox).verdict is Verdict.NO_CODE
    )
    assert grade_response(ECHO, f"<think>no</think>\n{fence}", sandbox).verdict is Verdict.ACCEPTED


def test_records_cross_and_lists_are_changed_in_place(sandbox):
    prelude = (
        "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = "
        "val, next\n"
    )
    tests = (
        "def check(f):\n    found = f(ListNode(1, ListNode(2)))\n    assert (found.val, "
        "found.next.val) == (2, 1)\ncheck(Solution().reverse)\nnumbers = [3, 1, 2]\nassert "
        "Solution().sort(numbers) is None\nassert numbers == [1, 2, 3]"
    )
    problem = Problem(
        "records", "test", (AssertTest(tests, ("Solution",)),), prelude=prelude, time_s=1.0
    )
    program = (
        "class Solution:\n    def reverse(self, head):\n        before = None\n        while "
        "head:\n            head.next, before, head = before, head, head.next\n        return "
        "before\n    def sort(self, numbers):\n        numbers.sort()\n"
    )
    assert grade(problem, program, sandbox).verdict is Verdict.ACCEPTED


def test_a_declared_checker_decides(sandbox):
    checker = "def check(input, expected, output):\n    return int(output) ** 2 == int(input)"
    tests = (StdinTest("49\n", "7"), StdinTest("25\n", "5"))
    problem = Problem(
        "root", "test", tests, comparison=Comparison("checker", checker=checker), time_s=1.0
    )
    assert grade(problem, "print(-round(int(input()) ** 0.5))", sandbox).verdict is Verdict.ACCEPTED
    assert grade(problem, "print(7)", sandbox).verdict is Verdict.WRONG_ANSWER


def test_a_list_of_one_may_be_the_value_or_around_it(sandbox):
    boxed = Problem("boxed", "test", (CallTest((2,), 4, boxed=True),), entry_point="f", time_s=1.0)
    verdicts = [
        grade(boxed, f"def f(x):\n    return {text}", sandbox).verdict
        for text in ("4", "[4]", "[[4]]", "[4, 4]")
    ]
    assert verdicts == [
        Verdict.ACCEPTED,
        Verdict.ACCEPTED,
        Verdict.WRONG_ANSWER,
        Verdict.WRONG_ANSWER,
    ]


COUNT = Problem(
    "count", "test", tuple(CallTest((n,), n + 1) for n in range(5)), entry_point="f", time_s=2.0
)


@pytest.mark.parametrize(
    ("program", "verdict", "failed"),
    [
        ("def f(n):\n    return n + 1", Verdict.ACCEPTED, None),
        ("def f(n):\n    return n + (n != 3)", Verdict.WRONG_ANSWER, 3),
        ("def f(n):\n    return 1 // (n != 3) + n", Verdict.RUNTIME_ERROR, 3),
        # Together too slow, each of them quick enough; right in processes of their own, or only in
        # one of all.
        (
            (
                "import time\ndef f(n):\n    t = time.process_time()\n"
                "    while time.process_time() < t + 0.4:\n        pass\n    return n + 1"
            ),
            Verdict.ACCEPTED,
            None,
        ),
        (
            "seen = []\ndef f(n):\n    seen.append(n)\n    return n + len(seen)",
            Verdict.ACCEPTED,
            None,
        ),
        (
            "calls = 0\ndef f(n):\n    global calls\n    calls += 1\n    return calls",
            Verdict.ACCEPTED,
            None,
        ),
        (
            "import os\nos.write(3, b'[1]\\n[2]\\n[3]\\n[4]\\n[5]\\n[6]\\n')\nos._exit(0)",
            Verdict.WRONG_ANSWER,
            0,
        ),
        ("import os\nos.write(3, b'[1]\\n')\nos._exit(0)", Verdict.WRONG_ANSWER, 1),
    ],
)
def test_calls_in_one_process_and_one_by_one(sandbox, program, verdict, failed):
    result = grade(COUNT, program, sandbox)
    assert (result.verdict, result.failed_test) == (verdict, failed), result
    assert result.passed == (5 if failed is None else failed)


def test_kodcode_may_use_pytest(sandbox):
    tests = (
        "import pytest\nfrom solution import root\n\ndef test_root():\n    assert root(4.0) == "
        "pytest.approx(2.0)\n    with pytest.raises(ValueError, match='negative'):\n       "
        " root(-1)\n"
    )
    problem = read_kodcode(tests, name="root", time_s=2.0)
    right = "def root(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x ** 0.5"
    assert grade(problem, right, sandbox).verdict is Verdict.ACCEPTED
    assert (
        grade(problem, "def root(x):\n    return x ** 0.5", sandbox).verdict is Verdict.WRONG_ANSWER
    )


def test_tests_that_lack_a_module_are_infrastructure(sandbox):
    problem = Problem(
        "lacks", "test", (AssertTest("import not_there\nassert f(1) == 1", ("f",)),), time_s=1.0
    )
    result = grade(problem, "def f(x):\n    return x", sandbox)
    assert result.verdict is Verdict.INFRASTRUCTURE and "not_there" in result.reason


@pytest.mark.parametrize(
    "tests",
    [
        "try:\n    f(1)\nexcept:\n    pass\n",  # a bare except
        "try:\n    f(1)\nexcept Exception:\n    pass\n",
        "assert not list(zip(map(f, [1, 2]), [5, 6]))",  # StopIteration would end the loop
    ],
)
@pytest.mark.parametrize(
    "program",
    [
        "import os\ndef f(x):\n    os._exit(0)",
        "def f(x):\n    return [0] * 2_000_000",
        (
            "import os, struct\ndef f(x):\n    os.write(3, struct.pack('<Q', 2) + b'[]')\n   "
            " os._exit(0)"
        ),
        (
            "class Seven:\n    def issubset(self, other):\n        return True\ndef f(x):\n   "
            " return Seven()"
        ),
    ],
)
def test_no_answer_decides_whatever_the_tests_make_of_it(sandbox, tests, program):
    problem = Problem("no answer", "test", (AssertTest(tests, ("f",)),), time_s=1.0)
    result = grade(problem, program, sandbox)
    assert result.verdict in (Verdict.RUNTIME_ERROR, Verdict.WRONG_ANSWER), result


# As HumanEval+ publishes its tests.
PLUS = """
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
        "test": PLUS,
    }
    problem = read_humaneval(row, source="humanevalplus", time_s=2.0)
    result = grade(problem, f"def halve(x):\n    return {returned}", sandbox)
    assert result.verdict is verdict, result


def test_an_import_error_of_the_program_is_its_own(sandbox):
    tests = (
        "errors = []\nfor x in (1, 2):\n    try:\n        f(x)\n    except Exception as error:\n"
        "        errors.append(error)\nif errors:\n    raise errors[0]"
    )
    problem = Problem("errors", "test", (AssertTest(tests, ("f",)),), time_s=1.0)
    program = "def f(x):\n    raise ImportError('x') if x == 1 else ValueError('y')"
    assert grade(problem, program, sandbox).verdict is Verdict.RUNTIME_ERROR


@pytest.mark.parametrize(
    ("tests", "program"),
    [
        (
            "assert f() == (1, 2)",
            (
                "from typing import NamedTuple\nclass Q(NamedTuple):\n    a: int = 1\n    b: int = "
                "2\ndef f():\n    return Q()"
            ),
        ),
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
    problem = Problem("own", "test", (AssertTest(tests, ("f",)),), time_s=1.0)
    result = grade(problem, program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result


def test_classes_of_the_prelude_have_their_module(sandbox):
    prelude = "import pickle\nclass Node:\n    def __init__(self, v):\n        self.v = v"
    problem = Problem(
        "node",
        "test",
        (AssertTest("assert f(Node(3)).v == 3", ("f",)),),
        prelude=prelude,
        time_s=1.0,
    )
    program = "def f(node):\n    return pickle.loads(pickle.dumps(node))"
    assert grade(problem, program, sandbox).verdict is Verdict.ACCEPTED


def test_many_lines_for_few_calls_cost_the_judge_little(sandbox):
    program = "import os\nos.write(3, b'ab\\n' * (8 << 20))\nos._exit(0)"
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert grade(COUNT, program, sandbox).verdict is Verdict.WRONG_ANSWER
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin < 200 << 10


def test_iteration_that_stops_in_the_program_ends_no_loop_of_the_tests(sandbox):
    tests = "for found, wanted in zip(map(f, [1, 2]), [1, 2]):\n    assert found == wanted"
    problem = Problem("loop", "test", (AssertTest(tests, ("f",)),), time_s=1.0)
    result = grade(problem, "def f(x):\n    raise StopIteration", sandbox)
    assert result.verdict is Verdict.RUNTIME_ERROR, result


def test_deep_members_cost_the_judge_no_stack(sandbox):
    deep = (
        "import json, os\nos.write(3, json.dumps([['s', 1]] + [['t', 1]] * 900_000 + [['t', "
        "0]]).encode())\nos._exit(0)"
    )
    result = grade(ADD, f"def add(a, b):\n    pass\n{deep}", sandbox)
    assert result.verdict is Verdict.WRONG_ANSWER and "levels deep" in result.reason


def test_numbers_that_cannot_be_compared_are_wrong(sandbox):
    loose = Comparison("tolerance", relative=1e-6)
    problem = Problem("large", "test", (StdinTest("", "1.5"),), comparison=loose, time_s=1.0)
    assert grade(problem, "print('9' * 2_000_000)", sandbox).verdict is Verdict.WRONG_ANSWER
    keys = Problem("keys", "test", (CallTest((), {"a": 1}),), entry_point="f", time_s=1.0)
    assert (
        grade(keys, "def f():\n    return {10**5000: 1}", sandbox).verdict is Verdict.WRONG_ANSWER
    )


def test_an_operating_system_error_is_infrastructure(sandbox, monkeypatch):
    def full(*_arguments):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("verl_pipeline.sandbox.channels.os.memfd_create", full)
    result = grade(ECHO, "print(input())", sandbox)
    assert result.verdict is Verdict.INFRASTRUCTURE and "Too many open files" in result.reason


def test_a_failing_checker_is_infrastructure(sandbox):
    comparison = Comparison(
        "checker", checker="def check(input, expected, output):\n    return nothing"
    )
    problem = Problem("root", "test", (StdinTest("1", "1"),), comparison=comparison, time_s=1.0)
    result = grade(problem, "print(1)", sandbox)
    assert (
        result.verdict is Verdict.INFRASTRUCTURE and "checker of test/root failed" in result.reason
    )
    assert result.reward is None


def test_a_failure_of_the_sandbox_is_tried_again_and_then_infrastructure(sandbox, monkeypatch):
    failures = iter([SandboxError("planted")])
    original = Sandbox.worker

    def failing(self):
        if (failure := next(failures, None)) is not None:
            raise failure
        return original(self)

    monkeypatch.setattr(Sandbox, "worker", failing)
    assert grade(ECHO, "print(input())", sandbox).verdict is Verdict.ACCEPTED
    failures = iter([SandboxError("planted")] * 2)
    result = grade(ECHO, "print(input())", sandbox)
    assert (result.verdict, result.reason, result.reward) == (
        Verdict.INFRASTRUCTURE,
        "planted",
        None,
    )


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
def test_what_functions_may_return_to_asserts(sandbox, tests, program):
    problem = Problem("values", "test", (AssertTest(tests, ("f", "Stack")),), time_s=1.0)
    result = grade(problem, program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result
