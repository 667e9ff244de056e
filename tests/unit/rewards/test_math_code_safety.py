"""Text in an answer never becomes code in the process that compares answers."""

import subprocess
import sys

import pytest

from tests.helpers.math_reward import get_verdict
from tests.helpers.patience import scale_deadline

pytest.importorskip("math_verify")
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("no_other_verifiers")]

# With math-verify alone, each of these is executed if it is in \text{}: sympy prints the term of
# a sum into the source of a lambda.
CODE = [
    "[[0\x0cfor\x0cexit.__class__.__getitem__\x0cin[print]],exit[7],5][2]",
    "exit.__class__",
    "1\rimport\x0cthis",
]


def make_sum_with_name(name):
    return f"\\sum_{{n=0}}^{{\\infty}} \\frac{{\\text{{{name}}}^n}}{{n!}}+0"


@pytest.mark.parametrize("name", CODE)
def test_names_in_an_answer_are_not_executed(name):
    assert get_verdict(make_sum_with_name(name), "\\pi") == "wrong_answer"


# Prints whatever sympy executes or compiles, after the check of names has been disabled.
COMPARES_WITHOUT_NAME_CHECK = """
import sys
import sympy
from verl_pipeline.rewards import math_answer, math_parsing, math_values

math_answer._forbid_code_evaluation()
compiled = []
sys.addaudithook(lambda event, found: event == "compile" and compiled.append(repr(found[0])))
n, name = sympy.symbols("n exit")
for code in (
    lambda: sympy.Sum(name**n / sympy.factorial(n), (n, 0, sympy.oo)).evalf(),
    lambda: sympy.lambdify(n, name),
    lambda: sympy.sympify("exit(5)"),
    lambda: sympy.sympify("[].append"),
):
    try:
        print("ran", code())
    except (RuntimeError, ValueError):
        pass
math_parsing._NAME = math_parsing.re.compile(".*", math_answer.re.DOTALL)
for answer in sys.argv[1:]:
    print(math_answer.compare_answers("\\\\pi", answer, 30.0)[0])
print([source for source in compiled if "exit" in source or "this" in source])
"""


def test_sympy_makes_no_code_of_text():
    answers = [make_sum_with_name(name) for name in ["exit", *CODE]]
    run = subprocess.run(
        [sys.executable, "-c", COMPARES_WITHOUT_NAME_CHECK, *answers],
        capture_output=True,
        text=True,
        timeout=scale_deadline(120),
    )
    assert run.stdout.split() == ["wrong_answer"] * 4 + ["[]"], run.stderr
