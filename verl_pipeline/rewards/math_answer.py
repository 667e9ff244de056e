"""Whether two answers are equal, and the process that says so; see
:mod:`verl_pipeline.rewards.math`.

Invariants:
* An answer is data: sympy makes code of expressions and strings and runs it; here it cannot, and
  names are plain.
* No verdict depends on answers compared before, nor on chance.
* An answer is read as a whole, and in one way.
* An answer states one thing: a relation is wrong, but for a name's value (``x = 5``, ``AB = 5``,
  ``f(x) = 5``) and for the relation that was asked for.
* Where an integer is expected, the answer equals it exactly. Where something finite is, the answer
  is finite.

Equality is otherwise math-verify's, which is lenient in ways that are kept:
* If either side is a decimal, six decimals are compared: 0.333333 is 1/3, and 0.0 is 10^{-7}. Two
  irrational numbers are compared to fifteen.
* An expression need not be evaluated: ``\\binom{5}{1}`` is 5, and so the sum that a question asks
  for answers it.
* Units do not count, nor does a last letter that may be one, nor the base of a number: 5, ``5m``,
  ``5s``, ``5_7`` are the same, and 5\\% is 5 as well as 0.05.
* ``(1, 2)`` is an open interval, a point, and ``1, 2`` in this order.
"""

import ctypes
import importlib
import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

from verl_pipeline.grading.verdict import Verdict

MEMORY_BYTES = 1 << 30
# Characters.
MOST_REASON = 300

_PR_SET_PDEATHSIG = 1
# Where sympy makes code: of an expression that it prints, and of a string that stands for an
# expression.
_EVALUATING = ("sympy.utilities.lambdify", "sympy.parsing.sympy_parser")
# A word, and a subscript or an accent's argument, with which it is no Python.
_NAME = re.compile(r"\\?[A-Za-z0-9,'-]+(?:_[A-Za-z0-9]|_?\{[ -~]*\})?")
_UNIT = re.compile(r"\\(?:text(?:rm|normal)?|mathrm|mbox)\s*\{[^{}\d]*\}(?:\s*\^\s*\{?\d\}?)?$")
_THIN_SPACE = re.compile(r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))")
_MIXED = re.compile(r"(?<=\d)\s+(\d+)\s*/\s*(\d+)")
# Read as their sum.
_TWO_NUMBERS = re.compile(r"\d(?:\s|\\[,;: ]|\\q?quad)+\d")
# Read as one of its sides.
_APPROXIMATE = re.compile(r"\\approx|~=|[≃≅≈≊≋]")


def serve() -> None:
    """Compare what stands in the lines of the standard input, until it ends: expected, answer,
    seconds of CPU.
    """
    # The parent's end of the pipe may live on in a fork of it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()  # math-verify warns that it keeps no time
    _evaluate_nothing()
    from sympy.core.cache import clear_cache

    if compare("(x+1)^2", "x^2+2x+1", 60.0)[0] is not Verdict.ACCEPTED:
        raise RuntimeError("math-verify does not work here")
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        print("ready", file=replies, flush=True)
        for line in sys.stdin:
            clear_cache()
            print(json.dumps(compare(*json.loads(line))), file=replies, flush=True)


def _evaluate_nothing() -> None:
    """From here on sympy makes no code in this process; the strings it needs, numbers and names,
    are read instead.
    """
    from sympy import Float, Integer, Rational, Symbol

    def refuse(*_args: Any) -> None:
        raise RuntimeError("no text becomes code here")

    def read(text: str, **_settings: Any) -> Any:
        if text.isidentifier():
            return Symbol(text)
        return Integer(text) if text.isdecimal() else Rational(text) if "/" in text else Float(text)

    for name in _EVALUATING:
        vars(importlib.import_module(name)).update(
            eval=refuse, exec=refuse, compile=refuse, parse_expr=read
        )


def compare(expected: str, answer: str, cpu_s: float) -> tuple[Verdict, str]:
    """The verdict on ``answer``, and why; SIGPROF ends the process if it takes more than ``cpu_s``
    of CPU time.

    Only a signal that nothing handles also ends long calls into C, and leaves no state half
    changed.
    """
    from math_verify import verify
    from sympy import Float, Rational
    from sympy.core.random import seed

    seed(0)  # sympy asks for assumptions in random order, and not each order gives the same answer
    if answer.strip() == expected.strip() != "":
        return Verdict.ACCEPTED, ""
    try:
        wanted = _read(expected)
    except Exception as error:
        return (
            Verdict.INFRASTRUCTURE,
            f"the expected answer {expected!r} cannot be read: {error!r}"[:MOST_REASON],
        )
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        found = _read(answer)
        if _APPROXIMATE.search(answer) or _says_more(found, wanted):
            return Verdict.WRONG_ANSWER, "a relation that was not asked for"
        if not _finite(found) and _finite(
            wanted
        ):  # sympy simplifies the difference to 0, of |\infty| and \pi say
            return Verdict.WRONG_ANSWER, "an answer that is not finite"
        if getattr(wanted, "is_Integer", False):
            found = found.xreplace(
                {decimal: Rational(str(decimal)) for decimal in found.atoms(Float)}
            )
        if verify(wanted, found, timeout_seconds=None):
            return Verdict.ACCEPTED, ""
    except Exception as error:
        return Verdict.WRONG_ANSWER, f"an answer that cannot be read: {error!r}"[:MOST_REASON]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Verdict.WRONG_ANSWER, "another answer than expected"


def _read(text: str) -> Any:
    """The expression; math-verify's own ``parse`` would look for one anywhere in the text."""
    from latex2sympy2_extended import (
        NormalizationConfig,
        convert_to_pct,
        latex2sympy,
        normalize_latex,
    )
    from math_verify.grader import should_treat_as_complex
    from sympy import Basic, MatrixBase, preorder_traversal

    text = text.replace("~", " ").strip().removesuffix(".")
    text = _UNIT.sub("", text).strip() or text
    text = _MIXED.sub(r"\\frac{\1}{\2}", _THIN_SPACE.sub("", text))
    rules = NormalizationConfig(units=True, malformed_operators=True, nits=True, boxed="last")
    # Its own rule for \text{} takes all from the first one to a brace at the end; here none is at
    # the end.
    text = normalize_latex(text + " ", rules)
    if _TWO_NUMBERS.search(text):
        raise ValueError("two numbers side by side")
    number = re.sub(r"\\?%$", "", text)
    value = latex2sympy(
        number, is_real=not should_treat_as_complex(number), normalization_config=None
    )
    if not isinstance(value, Basic | MatrixBase):
        raise ValueError("no expression")
    for node in preorder_traversal(value):
        name = getattr(node, "name", None)
        if isinstance(name, str) and not _NAME.fullmatch(name):
            raise ValueError("a name that is not plain")
    return value if number == text else convert_to_pct(value)


def _says_more(found: Any, wanted: Any) -> bool:
    """Whether the answer has a relation of a kind, or about a symbol, that the expected one has
    not.
    """
    from sympy import Eq, Symbol
    from sympy.core.function import AppliedUndef
    from sympy.core.relational import _Inequality

    def kind(relation: Any) -> type:
        return _Inequality if isinstance(relation, _Inequality) else relation.func

    def names_a_value(relation: Any) -> bool:
        if not isinstance(relation, Eq):
            return False
        letters = relation.lhs.args if relation.lhs.is_Mul else (relation.lhs,)
        return all(isinstance(letter, Symbol | AppliedUndef) for letter in letters)

    said, asked = list(_relations(found)), {kind(relation) for relation in _relations(wanted)}
    if (
        said
        and asked
        and {str(symbol) for symbol in found.free_symbols} != {str(s) for s in wanted.free_symbols}
    ):
        return True
    return not all(names_a_value(relation) or kind(relation) in asked for relation in said)


def _relations(value: Any) -> Iterator[Any]:
    from sympy import preorder_traversal
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import BooleanFunction

    return (
        node for node in preorder_traversal(value) if isinstance(node, Relational | BooleanFunction)
    )


def _finite(value: Any) -> bool:
    """Whether every number in it is, but for the ends of intervals, sums and integrals, and what
    limits go to.
    """
    from sympy import Expr, Interval, Limit, MatrixBase, S
    from sympy.concrete.expr_with_limits import ExprWithLimits

    if isinstance(value, Expr) and not value.free_symbols:
        return (
            not value.doit().evalf().has(S.Infinity, S.NegativeInfinity, S.ComplexInfinity, S.NaN)
        )
    if isinstance(value, Limit | ExprWithLimits):
        return True
    parts = value.flat() if isinstance(value, MatrixBase) else value.args
    if isinstance(value, Interval):
        parts = [end for end in value.args[:2] if end not in (S.Infinity, S.NegativeInfinity)]
    return all(_finite(part) for part in parts)
