"""Decides whether two answers are equal, in the process of :mod:`verl_pipeline.rewards.math`.

Invariants:
* An answer is data: sympy turns expressions and strings into code and runs it, but not here, and
  names must be plain.
* A verdict depends neither on earlier comparisons nor on chance.
* An answer is parsed as a whole, and in one way only.
* An answer states one thing: a relation is wrong, except for the value of a name (``x = 5``,
  ``AB = 5``, ``f(x) = 5``) and for the relation that the expected answer has.
* If a finite value is expected, the answer is finite.
* What can be exact is compared exactly, whatever the number of digits; other numbers must agree in
  1,000 significant digits (30 if a sum, product, integral or limit without a closed form remains).
* Symbols keep their case. Words, and the letter of a choice that is expected as ``\\text{(C)}``, do
  not: Monday is monday, but N/2 is not n/2.
* Units do not count, nor do fonts, colours and sizes; notations of one number are equal.

:mod:`verl_pipeline.rewards.math_notation` says which notations are read, and
:mod:`verl_pipeline.rewards.math_values` how values are compared. In all other respects equality is
that of math-verify, with this leniency:
* A decimal stands for a value that has no finite decimal if it is that value, rounded or cut off,
  with at least six significant digits: 0.333333 equals 1/3, and 3.14159 equals \\pi. Otherwise
  decimals are exact: 0.5000000001 is not 1/2, and 0.000977 is not 1/1024.
* An expression need not be evaluated: ``\\binom{5}{1}`` equals 5, and so the sum that a question
  asks for is an answer to it.
* A last letter that may be a unit does not count, nor does the base of a number: 5, ``5m``, ``5s``
  and ``5_7`` are equal, and 5\\% equals 5 as well as 0.05. Degrees are a unit, except in the
  argument of a trigonometric function.
* ``(1, 2)`` is an open interval, a point, and ``1, 2`` in this order, but not ``\\{1, 2\\}``.
* Inequalities that bound a symbol by numbers equal the set of its values: ``x \\ge 3`` and
  ``[3, \\infty)``.
* An answer may repeat elements of a list. If the expected list repeats one, the answer has to.
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

from verl_pipeline.grading.verdict import Verdict, VerdictAndReason

MEMORY_LIMIT_BYTES = 1 << 30
MAX_REASON_CHARACTERS = 300
# Begins the reason if no answer can be compared with the expected one.
UNREADABLE = "the expected answer cannot be read"

_PR_SET_PDEATHSIG = 1
# Modules in which sympy turns an expression, printed as text, or a string into code.
_CODE_MAKING_MODULES = ("sympy.utilities.lambdify", "sympy.parsing.sympy_parser")
_LETTER_PATTERN = r"(?:\\(?:text(?:bf|rm|it)?|math(?:rm|bf)|mbox)\s*\{{)?\s*{}\s*\.?\s*\}}?"
# A letter in brackets names one of several choices, so that its case does not matter.
_CHOICE = re.compile(_LETTER_PATTERN.format(r"\(\s*([A-Ja-j])\s*\)"))
_LETTER = re.compile(_LETTER_PATTERN.format(r"\(?\s*([A-Ja-j])\s*\)?"))
# An approximation would be parsed as one of its sides.
_APPROXIMATION = re.compile(r"\\approx|~=|[≃≅≈≊≋]")


def serve_comparisons() -> None:
    """Compare the answers in the lines of standard input until it ends.

    Each line is a JSON list: expected answer, answer or null, limit of CPU time in seconds. Each
    reply is a line with the verdict and its reason: of :func:`read_expected_answer` if there is no
    answer.
    """
    # Not by the end of standard input alone: a fork of the parent may hold the pipe's other end.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()  # math-verify warns that it has no timeout
    _forbid_code_evaluation()
    from sympy.core.cache import clear_cache

    # Integers may have any number of digits: limits of CPU time and memory apply.
    sys.set_int_max_str_digits(0)
    if compare_answers("(x+1)^2", "x^2+2x+1", 60.0)[0] is not Verdict.ACCEPTED:
        raise RuntimeError("math-verify does not work here")
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # whatever prints to standard output must not appear among the replies
        print("ready", file=replies, flush=True)
        for line in sys.stdin:
            clear_cache()
            expected, answer, cpu_s = json.loads(line)
            result = (
                read_expected_answer(expected, cpu_s)
                if answer is None
                else compare_answers(expected, answer, cpu_s)
            )
            print(json.dumps(result), file=replies, flush=True)


def _forbid_code_evaluation() -> None:
    """Let sympy turn no text into code in this process.

    Strings that it needs are parsed instead: they are numbers and names.
    """
    from sympy import Float, Integer, Rational, Symbol

    def refuse_code(*_args: Any) -> None:
        raise RuntimeError("text must not become code here")

    def parse_text(text: str, **_settings: Any) -> Any:
        if text.isidentifier():
            return Symbol(text)
        return Integer(text) if text.isdecimal() else Rational(text) if "/" in text else Float(text)

    for name in _CODE_MAKING_MODULES:
        vars(importlib.import_module(name)).update(
            eval=refuse_code, exec=refuse_code, compile=refuse_code, parse_expr=parse_text
        )


def compare_answers(expected: str, answer: str, cpu_s: float) -> VerdictAndReason:
    """Return the verdict on ``answer`` and its reason.

    SIGPROF ends the process if the comparison takes more than ``cpu_s`` seconds of CPU time: only a
    signal without a handler also ends long calls into C, and a dead process has no state that is
    half changed.
    """
    from sympy.core.random import seed

    from verl_pipeline.rewards.math_parsing import is_complex, parse_answer

    # sympy checks assumptions in random order, and some orders give another answer.
    seed(0)
    if answer.strip() == expected.strip() != "":
        return Verdict.ACCEPTED, ""
    symbols_are_complex = is_complex(expected) or is_complex(answer)
    try:
        expected_answer = parse_answer(expected, symbols_are_complex)
    except Exception as error:
        return Verdict.INFRASTRUCTURE, f"{UNREADABLE}: {error!r}"[:MAX_REASON_CHARACTERS]
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        if _APPROXIMATION.search(answer):
            return Verdict.WRONG_ANSWER, "an approximation"
        if _is_choice(expected, answer):
            return Verdict.ACCEPTED, ""
        return _compare_parsed(expected_answer, parse_answer(answer, symbols_are_complex))
    except Exception as error:
        reason = f"an answer that cannot be parsed: {error!r}"
        return Verdict.WRONG_ANSWER, reason[:MAX_REASON_CHARACTERS]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def read_expected_answer(expected: str, cpu_s: float) -> VerdictAndReason:
    """Return ``accepted`` if answers can be compared with ``expected``, else ``infrastructure``.

    SIGPROF ends the process as in :func:`compare_answers`.
    """
    from verl_pipeline.rewards.math_parsing import is_complex, parse_answer

    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        if _APPROXIMATION.search(expected):
            return Verdict.INFRASTRUCTURE, f"{UNREADABLE}: an approximation equals no answer"
        parsed = parse_answer(expected, is_complex(expected))
        verdict, reason = _compare_parsed(parsed, parsed)
    except Exception as error:
        return Verdict.INFRASTRUCTURE, f"{UNREADABLE}: {error!r}"[:MAX_REASON_CHARACTERS]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if verdict is not Verdict.ACCEPTED:
        return Verdict.INFRASTRUCTURE, f"{UNREADABLE}: it does not equal itself: {reason}"
    return verdict, ""


def _is_choice(expected: str, answer: str) -> bool:
    """Whether the letter of a choice is expected, as \\text{(C)}, and the answer is that letter."""
    choice, letter = _CHOICE.fullmatch(expected.strip()), _LETTER.fullmatch(answer.strip())
    return bool(choice and letter and choice[1].lower() == letter[1].lower())


def _compare_parsed(expected: Any, answer: Any) -> VerdictAndReason:
    from math_verify import verify

    from verl_pipeline.rewards.math_regions import are_same_regions, differ_in_kind
    from verl_pipeline.rewards.math_values import ValueComparison

    comparison = ValueComparison({**expected.decimals, **answer.decimals})
    comparison.install()
    if differ_in_kind(expected, answer) or not comparison.repeats_like(
        expected.value, answer.value
    ):
        return Verdict.WRONG_ANSWER, "the answer differs from the expected one"
    if are_same_regions(expected.value, answer.value):
        return Verdict.ACCEPTED, ""
    if _has_unexpected_relation(answer.value, expected.value):
        return Verdict.WRONG_ANSWER, "a relation that the expected answer does not have"
    # Otherwise sympy simplifies the difference of |\infty| and \pi, for example, to 0.
    if not _is_finite(answer.value) and _is_finite(expected.value):
        return Verdict.WRONG_ANSWER, "an answer that is not finite"
    if verify(expected.value, answer.value, timeout_seconds=None):
        return Verdict.ACCEPTED, ""
    return Verdict.WRONG_ANSWER, "the answer differs from the expected one"


def _has_unexpected_relation(value: Any, expected: Any) -> bool:
    """Whether the answer has a relation of a kind, or about a symbol, that is not expected."""
    from sympy import Eq, Symbol
    from sympy.core.function import AppliedUndef
    from sympy.core.relational import _Inequality

    def get_kind(relation: Any) -> type:
        return _Inequality if isinstance(relation, _Inequality) else relation.func

    def is_named_value(relation: Any) -> bool:
        if not isinstance(relation, Eq):
            return False
        letters = relation.lhs.args if relation.lhs.is_Mul else (relation.lhs,)
        return all(isinstance(letter, Symbol | AppliedUndef) for letter in letters)

    relations = list(_find_relations(value))
    expected_kinds = {get_kind(relation) for relation in _find_relations(expected)}
    if (
        relations
        and expected_kinds
        and {str(symbol) for symbol in value.free_symbols}
        != {str(symbol) for symbol in expected.free_symbols}
    ):
        return True
    return not all(
        is_named_value(relation) or get_kind(relation) in expected_kinds for relation in relations
    )


def _find_relations(value: Any) -> Iterator[Any]:
    from sympy import preorder_traversal
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import BooleanFunction

    return (
        node for node in preorder_traversal(value) if isinstance(node, Relational | BooleanFunction)
    )


def _is_finite(value: Any) -> bool:
    """Whether every number in ``value`` is finite.

    Exceptions are the ends of intervals, sums and integrals, and the points of limits.
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
    return all(_is_finite(part) for part in parts)
