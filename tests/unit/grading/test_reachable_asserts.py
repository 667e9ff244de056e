"""Scripts whose asserts do not all run are refused; compared with running generated scripts."""

import ast
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.grading import readers
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.reachable_asserts import parse_script

CONDITIONS = ["True", "False", "not True", "not 0", "0", "()", "[]", "[1, 2]", "not []"]
CONDITIONS += ["__name__ == '__main__'", "False and happens()", "happens()"]
BLOCKS = [
    *(f"if {condition}:" for condition in CONDITIONS),
    "while False:",
    "for _ in [1, 2]:",
    "for _ in (n for n in [1]):",
    "with contextlib.nullcontext():",
    "try:",
]
CALLS = ["f{}()", "x = [f{}]\nx[0]()", "pass"]


@st.composite
def make_scripts(draw):
    """Draw the lines of a script, in which each assert calls ``note`` with a number of its own."""
    count = 0

    def draw_block(depth, may_return):
        nonlocal count
        lines = []
        for _ in range(draw(st.integers(1, 3))):
            count += 1
            number = count
            kind = draw(st.sampled_from(["assert", "block", "function", "method", "return"]))
            if kind == "return" and may_return and draw(st.booleans()):
                lines.append("return")
            elif kind == "block" and depth:
                header = draw(st.sampled_from(BLOCKS))
                body = draw_block(depth - 1, may_return and not header.startswith("for"))
                lines += [header, *indent(body)]
                lines += ["finally:", "    pass"] * (header == "try:")
            elif kind == "function" and depth:
                lines += [f"def f{number}():", *indent(draw_block(depth - 1, True))]
                call = draw(st.sampled_from(CALLS))
                if call == CALLS[0] and draw(st.booleans()):
                    lines.append("    yield")
                lines += [call.format(number)]
            elif kind == "method" and depth:
                lines += [f"class C{number}:", f"    def m{number}(self):"]
                lines += indent(indent(draw_block(depth - 1, True)))
                lines += [draw(st.sampled_from([f"C{number}().m{number}()", f"C{number}()"]))]
            else:
                lines.append(f"assert note({number})")
        return lines

    return "\n".join(draw_block(3, False))


def indent(lines):
    return [f"    {part}" for line in lines for part in line.split("\n")]


@given(source=make_scripts())
@settings(max_examples=300, deadline=None)
def test_a_script_is_refused_exactly_if_an_assert_does_not_run(source):
    noted = set()
    scope = {
        "__name__": "tests",
        "contextlib": contextlib,
        "happens": lambda: True,
        "note": lambda number: noted.add(number) or True,
    }
    exec(compile(source, "script", "exec"), scope)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    all_ran = bool(nodes) and {node.test.args[0].value for node in nodes} == noted
    try:
        parse_script(source)
    except BadRow:
        assert not all_ran, source
    else:
        assert all_ran, source


CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (CHECK, "line 2 of the tests never runs"),
        (f"{CHECK}\nif __name__ == '__main__':\n    check(f)\n", "never runs"),
        (f"{CHECK}\nif False:\n    check(f)\n", "never runs"),
        (f"async {CHECK}\ncheck(f)\n", "never runs"),
        ("def check(candidate):\n    yield\n    assert candidate(1)\ncheck(f)\n", "never runs"),
        (f"{CHECK}\n{CHECK}\ncheck(f)\n", "line 2 of the tests never runs"),
        ("def check(c):\n    return\n    assert c(1)\ncheck(f)\n", "never runs"),
        ("import sys\nsys.exit()\nassert f(1)\n", "never runs"),
        (
            "import unittest as u\nclass T(u.TestCase):\n    def t(self):\n        assert f(1)\n",
            "never runs",
        ),
        ("f(1)\n", "no assert that can fail"),
        ("assert True, 'works'\n", "no assert that can fail"),
        ("assert (f(1) == 2, 'message')\n", "always true"),
        ("for x in []:\n    assert f(x)\n", "runs over no tests"),
        ("a = [1, 2]\nb = [1]\nfor x, y in zip(a, b):\n    assert f(x) == y\n", "lists of 2 and 1"),
        ("a = []\nb = []\nfor i, (x, y) in enumerate(zip(a, b)):\n    assert f(x)\n", "no tests"),
        ("assert f(", "not valid Python"),
    ],
)
def test_a_test_that_would_be_dropped(script, reason):
    with pytest.raises(BadRow, match=reason):
        parse_script(script)


@pytest.mark.parametrize(
    "script",
    [
        f"{CHECK}\ncheck(f)\ncheck(g)\n",
        "a = []\na.append(1)\nfor x in a:\n    assert f(x)\n",
        "def check(c):\n    assert c(1)\nglobals()['check'](f)\n",
        "import asyncio\nasync def check(c):\n    assert c(1)\nasyncio.run(check(f))\n",
        "import numpy as np\nnp.testing.assert_allclose(f(1), 2)\n",
        "if f(1) != 2:\n    raise AssertionError\n",
        "try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    assert False\n",
    ],
)
def test_a_script_whose_asserts_may_run(script):
    parse_script(script)


HUMANEVAL = {"task_id": "1", "prompt": "def f(x):\n", "entry_point": "f"}


@pytest.mark.parametrize(
    ("read", "row", "reason"),
    [
        (
            readers.read_humaneval,
            {**HUMANEVAL, "test": "assert f(1) == 2\n"},
            "check, which nothing",
        ),
        (
            readers.read_humaneval,
            {**HUMANEVAL, "test": "def check(candidate):\n    assert 1 == 1\n"},
            "does not use its argument",
        ),
        (readers.read_humaneval, {**HUMANEVAL, "entry_point": "f g", "test": CHECK}, "no name"),
        (readers.read_mbpp, {"test_list": ["assert f(1)", ""]}, "no assert"),
        (readers.read_mbpp, {"test_list": ["assert f(1)", "f(2)"]}, "no assert"),
        (readers.read_mbpp, {"test_list": ["assert f(1)", None]}, "missing"),
        (readers.read_mbpp, {"test_list": ["assert f(1)", "assert len([1])"]}, "none of the"),
        (readers.read_mbpp, {"test_list": "assert f(1)"}, "not valid JSON"),
        (
            readers.read_mbpp,
            {"test_list": ["assert f(1)"], "code": "def g(): 0"},
            "f, which nothing",
        ),
        (readers.read_leetcode, {"functional": f"{CHECK}\ncheck(max)\n"}, "do not use Solution"),
        (readers.read_leetcode, {"functional": CHECK}, "never runs"),
        (readers.read_leetcode, {"functional": "assert Solution().f(1)"}, "define no function"),
    ],
)
def test_tests_that_no_program_could_fail_are_refused(read, row, reason):
    with pytest.raises(BadRow, match=reason):
        read(row, name="1")


def test_a_solution_may_define_a_name_that_is_built_in():
    row = {"test_list": ["assert sum(10, 15) == 6"], "code": "def sum(a, b):\n    return 6"}
    (test,) = readers.read_mbpp(row, name="1").tests
    assert test.names == ("sum",)


def test_challenge_tests_of_mbpp_are_tests():
    row = {"test_list": ["assert f(1) == 1"], "challenge_test_list": ["assert f(2) == 2"]}
    assert len(readers.read_mbpp(row, name="1").tests) == 2


def test_long_integers_in_test_scripts_are_read():
    row = {"test_list": [f"assert f(1) == -{'7' * 5000} # isn't it"], "code": "f = lambda x: x"}
    (test,) = readers.read_mbpp(row, name="1").tests
    assert ast.literal_eval(test.source.split("==")[1].split("#")[0].strip()) == -int(
        7 * (10**5000 - 1) // 9
    )
    assert test.names == ("f",)
