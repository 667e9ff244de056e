"""Decides whether two values are equal, where math-verify compares the parts of two answers.

Invariants:
* What can be exact is compared exactly: integers, fractions, decimals and what sympy makes of their
  sums, products, powers and roots.
* Other numbers are equal if they agree in ``DIGITS`` significant digits (in ``DIGITS_OF_LIMITS`` if
  a sum, product, integral or limit remains, which takes long): relative, so that 10^{-20} is not 0.
* A decimal stands for a number that has no finite decimal, such as 1/3 or \\pi, if it is that
  number rounded or cut off, with at least ``MIN_DECIMAL_DIGITS`` significant digits. Two numbers
  with finite decimals are equal only if they are the same.
* Names keep their case.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from math_verify import grader
from math_verify.grader import get_pct_val, safe_sympy_doit, sort_key
from sympy import (
    Add,
    E,
    Expr,
    Float,
    Integral,
    Limit,
    MatrixBase,
    MatrixExpr,
    Mul,
    Pow,
    Product,
    Rational,
    Sum,
    Symbol,
    Tuple,
    expand,
    ordered,
    simplify,
)

DIGITS, DIGITS_OF_LIMITS = 1000, 30
MIN_DECIMAL_DIGITS = 6


class ValueComparison:
    """Compares values; math-verify calls it through the names of its own functions.

    Attributes:
        decimals: numbers that are written as decimals, with their digits behind the point.
    """

    def __init__(self, decimals: Mapping[Rational, int]):
        self.decimals = decimals

    def install(self) -> None:
        """Let math-verify compare numbers, expressions, names and finite sets with this object.

        Raises:
            AttributeError: math-verify has no function of that name.
        """
        replacements = {
            "sympy_numeric_eq": self.are_equal,
            "sympy_symbolic_eq": lambda _gold, _answer: False,
            "sympy_compare_symbols": self.are_names_equal,
            "sympy_deep_compare_set_and_tuple": self.are_elements_equal,
        }
        for name, function in replacements.items():
            getattr(grader, name)
            setattr(grader, name, function)

    def are_equal(self, gold: Any, answer: Any, *_limits: int) -> bool:
        """Whether two expressions or matrices are equal; 5\\% equals 5 as well as 0.05."""
        gold, answer = (
            safe_sympy_doit(value) if isinstance(value, MatrixBase | MatrixExpr) else value
            for value in (gold, answer)
        )
        if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
            return gold.shape == answer.shape and all(
                map(self.are_equal, gold.flat(), answer.flat())
            )
        if not isinstance(gold, Expr) or not isinstance(answer, Expr):
            return bool(gold == answer)
        percentages = get_pct_val(gold), get_pct_val(answer)
        if (percentages[0] is None) != (percentages[1] is None):
            if self._are_equal(get_pct_val(gold, gold), get_pct_val(answer, answer)):
                return True
            if percentages[0] is not None:  # a decimal with a percent sign is a decimal
                return self._are_equal(percentages[0], 100 * answer)
            return self._are_equal(100 * gold, percentages[1])
        return self._are_equal(gold, answer)

    def _are_equal(self, gold: Expr, answer: Expr) -> bool:
        values = safe_sympy_doit(gold), safe_sympy_doit(answer)
        difference = values[0] - values[1]
        if difference.free_symbols:
            return _is_zero_everywhere(difference)
        if _is_zero(difference):
            return True
        places = self._count_places(gold), self._count_places(answer)
        if places[0] is not None and places[1] is None:
            return stands_for(values[0], places[0], values[1])
        if places[1] is not None and places[0] is None:
            return stands_for(values[1], places[1], values[0])
        return False

    def _count_places(self, value: Expr) -> int | None:
        """Return the digits behind the point, or None if ``value`` is not written as a decimal.

        A decimal may be times a power of ten.
        """
        factors = [abs(factor) for factor in Mul.make_args(value) if factor != -1]
        decimals = [factor for factor in factors if factor in self.decimals]
        powers = [factor for factor in factors if isinstance(factor, Pow) and factor.base == 10]
        if len(decimals) != 1 or len(factors) != len(decimals) + len(powers):
            return None
        exponent = Add(*(power.exp for power in powers))
        return self.decimals[decimals[0]] - int(exponent) if exponent.is_Integer else None

    def are_names_equal(self, gold: Any, answer: Any) -> bool:
        """Whether values are equal of which at least one is a name: of one letter, or of several.

        \\text{abc} is one name, but abc is a product of three.
        """
        names = [_spell_name(value) for value in (gold, answer)]
        if None not in names:
            return names[0] == names[1]
        return self.are_equal(gold, answer)

    def are_elements_equal(self, gold: Any, answer: Any, *_limits: int) -> bool:
        """Whether two sets or tuples have equal elements, in any order if ``gold`` is a set.

        ``1, 2`` is parsed as a set that knows its order, which counts if ``gold`` is a tuple.
        """
        if len(gold) != len(answer):
            return False
        if isinstance(gold, Tuple):
            elements = getattr(answer, "_unsorted_args", None) or answer.args
            pairs = zip(gold.args, elements, strict=True)
            return all(grader.sympy_expr_eq(*pair, 6, 15) for pair in pairs)
        return self._have_same_elements(_sort(gold), _sort(answer))

    def repeats_like(self, gold: Any, answer: Any) -> bool:
        """Whether a list that repeats an element has the same elements, equally often."""
        elements = getattr(gold, "_unsorted_args", None)
        if elements is None or len(elements) == len(gold.args):
            return True
        given = getattr(answer, "_unsorted_args", ())
        return len(given) == len(elements) and self._have_same_elements(elements, given)

    def _have_same_elements(self, gold: Sequence[Any], answer: Sequence[Any]) -> bool:
        rest = list(answer)
        for element in gold:
            for index, candidate in enumerate(rest):
                if grader.sympy_expr_eq(element, candidate, 6, 15):
                    del rest[index]
                    break
            else:
                return False
        return True


def stands_for(decimal: Rational, places: int, value: Expr) -> bool:
    """Whether ``decimal`` is ``value``, which has no finite decimal, rounded or cut off.

    Args:
        places: digits of ``decimal`` behind the point; fewer than 0 if it ends before the point.
    """
    if has_finite_decimal(value) or value.is_extended_real is False:
        return False
    scale = Rational(10) ** places
    digits, shifted = abs(decimal * scale), value * scale
    if len(str(digits)) < MIN_DECIMAL_DIGITS:
        return False
    if not shifted.is_Rational:
        shifted = shifted.evalf(len(str(digits)) + 15, maxn=DIGITS)
        if not isinstance(shifted, Float):
            return False
        shifted = Rational(shifted)
    if (shifted < 0) != (decimal < 0):
        return False
    return digits in (math.floor(abs(shifted)), math.floor(abs(shifted) + Rational(1, 2)))


def has_finite_decimal(value: Expr) -> bool:
    """Whether ``value`` is a fraction whose denominator has no prime factors but 2 and 5."""
    if not value.is_Rational:
        return False
    denominator = value.q
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return bool(denominator == 1)


def _is_zero(number: Expr) -> bool:
    """Whether a number without symbols is zero."""
    if number.is_Rational:
        return bool(number == 0)
    has_limits = number.has(Sum, Product, Integral, Limit)
    parts = number.evalf(15, maxn=DIGITS_OF_LIMITS if has_limits else DIGITS).as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return bool(simplify(number) == 0)
    # sympy gives a precision of one bit to a sum whose terms cancel out to the last digit.
    return all(part == 0 or (part.is_Float and part._prec == 1) for part in parts)


def _is_zero_everywhere(expression: Expr) -> bool:
    """Whether an expression is zero whatever its symbols are."""
    simplified = simplify(expression)
    if not simplified.free_symbols:
        return _is_zero(simplified)
    coefficients: dict[Expr, Expr] = {}
    for term in expand(simplified).as_ordered_terms():
        number, rest = term.as_independent(*simplified.free_symbols, as_Add=False)
        coefficients[rest] = coefficients.get(rest, 0) + number
    return all(map(_is_zero, coefficients.values()))


def _spell_name(value: Any) -> str | None:
    """Return the name that a symbol or a product of symbols spells, or None."""
    letters = value.args if isinstance(value, Mul) else (value,)
    if not all(isinstance(letter, Symbol) or letter == E for letter in letters):
        return None
    return "".join("e" if letter == E else letter.name for letter in letters)


def _sort(elements: Any) -> list[Any]:
    return list(ordered(elements.args, keys=sort_key, default=False))
