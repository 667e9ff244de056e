"""Parses an answer, in the process of :mod:`verl_pipeline.rewards.math_answer`.

Invariants:
* An answer is parsed as a whole, and in one way only; numbers keep all their digits.
* Only a fraction of two integers right behind an integer makes a mixed number; anything else side
  by side is a product, except two numbers, which are an error.
* Symbols keep their case.
* Names must be plain, because sympy prints some expressions as code.
"""

import re
from dataclasses import dataclass
from typing import Any

from latex2sympy2_extended import NormalizationConfig, convert_to_pct, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from latex2sympy2_extended.symbols import sympy_singleton_map
from math_verify.grader import should_treat_as_complex
from sympy import Basic, Expr, MatrixBase, Rational, preorder_traversal

from verl_pipeline.rewards.math_notation import rewrite_notation
from verl_pipeline.rewards.math_units import keep_last_symbol

# A word, perhaps with a subscript or the argument of an accent, which make it invalid Python.
_NAME = re.compile(r"\\?[A-Za-z0-9,'-]+(?:_[A-Za-z0-9]|_?\{[ -~]*\})?")
_BRACES = re.compile(r"(?:[A-Za-z]\s*(?:=|\\in(?![A-Za-z]))\s*)?(?:\\left\s*)?\\\{")
# Two numbers side by side would be parsed as a product.
_TWO_NUMBERS = re.compile(r"\d(?:\s|\\[,;: ]|\\q?quad)+\d")
_FRACTION = re.compile(r"\\frac\{\d+\}\{\d+\}")
# Capital gamma would be Euler's constant, as the small one is.
sympy_singleton_map.pop("Gamma", None)


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer as an expression of sympy.

    Attributes:
        value: the expression; not evaluated.
        decimals: the numbers that are written as decimals, with their digits behind the point.
        has_braces: it is written as a set, ``\\{1, 2\\}``, which :attr:`value` does not tell from
            ``1, 2``.
    """

    value: Any
    decimals: dict[Rational, int]
    has_braces: bool


def is_complex(text: str) -> bool:
    """Whether the symbols of an answer may be complex."""
    return bool(should_treat_as_complex(text))


def parse_answer(text: str, symbols_are_complex: bool) -> ParsedAnswer:
    """Return the answer as an expression; math-verify's ``parse`` would search the text for one.

    Raises:
        Exception: the text is no answer in a notation that is known.
    """
    rules = NormalizationConfig(units=True, malformed_operators=True, nits=True, boxed="none")
    # Its rule for \text{} removes everything from the first \text to a brace at the end of the
    # text; after the added space no brace is at the end.
    text = normalize_latex(keep_last_symbol(rewrite_notation(text)) + " ", rules)
    if _TWO_NUMBERS.search(text):
        raise ValueError("two numbers side by side")
    number = re.sub(r"\\?%$", "", text)
    parser = _Parser(is_real=not symbols_are_complex)
    value = parser.parse(number)
    if not isinstance(value, Basic | MatrixBase):
        raise ValueError("not an expression")
    for node in preorder_traversal(value):
        name = getattr(node, "name", None)
        if isinstance(name, str) and not _NAME.fullmatch(name):
            raise ValueError("a name that is not plain")
    return ParsedAnswer(
        value if number == text else convert_to_pct(value),
        parser.decimals,
        bool(_BRACES.match(text)),
    )


class _Parser(_Latex2Sympy):  # type: ignore[misc]
    """latex2sympy's parser, with exact numbers and with products where it makes sums."""

    def __init__(self, is_real: bool) -> None:
        super().__init__(is_real=is_real, config=ConversionConfig(lowercase_symbols=False))
        self.decimals: dict[Rational, int] = {}

    def parse_number(self, text: str) -> Rational:
        number = Rational(text.replace(",", ""))
        if "." in text:
            self.decimals[number] = len(text.partition(".")[2])
        return number

    def convert_postfix_list(self, arr: list[Any], i: int = 0) -> Any:
        first = self.convert_postfix(arr[i])
        if not isinstance(first, Expr | MatrixBase):
            return super().convert_postfix_list(arr, i)
        rest = i + 1
        if rest < len(arr) and arr[i].getText().isdecimal():
            if _FRACTION.fullmatch(arr[rest].getText()):
                first += self.convert_postfix(arr[rest])
                rest += 1
        if rest == len(arr):
            return first
        factor = self.convert_postfix_list(arr, rest)
        has_matrix = any(getattr(part, "is_Matrix", False) for part in (first, factor))
        return (self.mat_mul_flat if has_matrix else self.mul_flat)(first, factor)
