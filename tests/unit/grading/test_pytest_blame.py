"""Who is to blame when pytest fails: the program, or the tests and the sandbox."""

import pytest

from verl_pipeline.grading import Problem, PytestTest, Verdict, grade
from verl_pipeline.grading.readers import read_kodcode

pytestmark = pytest.mark.timeout(120)
ADD = "def add(a, b):\n    return a + b\n"
TEST = "from solution import add\ndef test_a():\n    assert add(1, 2) == 3\n"


def grade_file(sandbox, tests: str, program: str):
    return grade(read_kodcode(tests, name="row", time_s=2.0), program, sandbox)


def grade_unread(sandbox, tests: str, *collected: tuple[str, int]):
    """Grade with a file that no reader has seen."""
    test = PytestTest(tests, ("add",), objects=True, collected=collected)
    return grade(Problem("row", "test", (test,), time_s=2.0), ADD, sandbox)


@pytest.mark.parametrize(
    ("tests", "program", "verdict", "reason"),
    [
        (TEST, "def sub(a, b):\n    return a - b\n", Verdict.RUNTIME_ERROR, "import name 'add'"),
        (TEST, "def add(a, b)\n", Verdict.COMPILE_ERROR, "SyntaxError"),
        (TEST, "add = 3\n", Verdict.WRONG_ANSWER, "not callable"),
        (TEST, "def add(a, b):\n    return 1 / 0\n", Verdict.RUNTIME_ERROR, "ZeroDivisionError"),
        (TEST, "def add(a, b):\n    return a - b\n", Verdict.WRONG_ANSWER, "AssertionError"),
        (TEST, "def add(a, b):\n    while True: pass\n", Verdict.TIME_LIMIT, "CPU time"),
        (
            TEST,
            "import os\ndef add(a, b):\n    os._exit(0)\n",
            Verdict.RUNTIME_ERROR,
            "ended before it had answered",
        ),
        (
            TEST.replace("import add", "import *"),
            "def sub(a, b):\n    return a - b\n",
            Verdict.RUNTIME_ERROR,
            "name 'add' is not defined",
        ),
        (
            "import solution\ndef test_a():\n    assert solution.add(1, 2) == 3\n",
            "",
            Verdict.RUNTIME_ERROR,
            "has no attribute 'add'",
        ),
        (
            f"{TEST}assert add(2, 2) == 4\n",
            "def add(a, b):\n    return 3\n",
            Verdict.WRONG_ANSWER,
            "AssertionError",
        ),
        (
            f"{TEST}FIRST = add([1], [2])[0]\n",
            "def add(a, b):\n    return 3\n",
            Verdict.WRONG_ANSWER,
            "TypeError",
        ),
        (TEST, "def __getattr__(name):\n    raise SystemExit(0)\n", Verdict.RUNTIME_ERROR, "Exit"),
        (
            f"{TEST}THREE = add(1, 2)\n",
            "def add(a, b):\n    raise SystemExit(0)\n",
            Verdict.RUNTIME_ERROR,
            "SystemExit",
        ),
        (
            TEST.replace("import add", "import *"),
            "def __getattr__(name):\n    raise SystemExit(0)\n__all__ = 3\n",
            Verdict.RUNTIME_ERROR,
            "",
        ),
        (
            f"{TEST}FIRST = add([1], [2])[0]\n",
            "def add(a, b):\n    raise ImportError('numpy')\n",
            Verdict.RUNTIME_ERROR,
            "ImportError",
        ),
        (
            "import pytest\nfrom solution import add\n@pytest.fixture\ndef three():\n"
            "    return add(1, 2)\ndef test_a(three):\n    assert three == 3\n",
            "def add(a, b):\n    raise ValueError('no')\n",
            Verdict.RUNTIME_ERROR,
            "ValueError: no",
        ),
    ],
)
def test_what_the_program_does_is_its_own_failure(sandbox, tests, program, verdict, reason):
    result = grade_file(sandbox, tests, program)
    assert result.verdict is verdict and reason in result.reason, result


def test_the_reason_names_the_failure_but_no_expected_value(sandbox):
    tests = (
        "import unittest\nimport pytest\nfrom solution import add\n"
        "@pytest.mark.parametrize('a, total', [(4711, 4712)])\n"
        "def test_a(a, total):\n    assert add(a, 1) == total, f'{total} is right'\n"
        "class TestB(unittest.TestCase):\n"
        "    def test_b(self):\n        self.assertEqual(add(1, 4710), 4711)\n"
    )
    for program in ("def add(a, b):\n    return 0\n", "def add(a, b):\n    return a + 1\n"):
        result = grade_file(sandbox, tests, program)
        assert result.verdict is Verdict.WRONG_ANSWER and "471" not in result.reason, result


@pytest.mark.parametrize(
    ("tests", "collected", "reason"),
    [
        (f"import not_there\n{TEST}", [("test_a", 1)], "not_there"),
        (f"{TEST}TABLE = {{}}['key']\n", [("test_a", 1)], "KeyError"),
        (TEST, [("test_a", 2)], "collected"),
        (TEST, [("test_a", 1), ("test_b", 1)], "collected"),
        (f"import pytest\n@pytest.mark.skip\n{TEST[25:]}", [("test_a", 1)], "0 passed"),
        (TEST.replace("test_a()", "test_a(unknown)"), [("test_a", 1)], "unknown"),
        ("def test_a(:\n", [("test_a", 1)], "SyntaxError"),
    ],
)
def test_what_the_tests_cannot_do_is_infrastructure(sandbox, tests, collected, reason):
    result = grade_unread(sandbox, tests, *collected)
    assert result.verdict is Verdict.INFRASTRUCTURE and reason in result.reason, result
    assert result.reward is None


def test_a_test_that_skips_itself_has_failed(sandbox):
    tests = TEST.replace("    assert", "    import pytest\n    pytest.skip()\n    assert")
    result = grade_unread(
        sandbox, f"{tests}def test_b():\n    pass\n", ("test_a", 1), ("test_b", 1)
    )
    assert result.verdict is Verdict.WRONG_ANSWER, result
