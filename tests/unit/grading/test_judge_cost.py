"""What a comparison costs the judge grows no faster than output and expected output together."""

import itertools
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers.counted_steps import count_steps
from verl_pipeline.grading.output_comparison import is_matching_text, is_matching_value
from verl_pipeline.grading.problem import Comparison
from verl_pipeline.grading.returned_values import decode_returned_value

RULES = st.sampled_from(
    [Comparison(), Comparison("any_order"), Comparison("tolerance", relative=1e-6, absolute=1e-6)]
)
# Of what an answer costs; the rest is constant.
GROWTH, CONSTANT = 6, 2000

PIECES = st.lists(
    st.sampled_from(
        ["1", "0", "9", "7" * 50, ".", "e", "e9999", "E-9", "-", "+", " ", "   ", "\t", "\r\n",
         "\n", "\n\n", "x", "1x", "é", "_", "nan", "\0", "\ud800", "1 2\n", "0.50\n", "a b c\n"]
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@st.composite
def texts(draw) -> Callable[[int], str]:
    begin, middle, end = (draw(st.just([]) | PIECES) for _ in range(3))
    return lambda n: "".join(begin) + "".join(middle) * n + "".join(end)


def _make_chain(leaf: str, n: int) -> list:
    """Encode a value that is nested ``n`` levels deep."""
    return [["l", 1]] * n + [leaf]


def _count_up(n: int) -> list:
    return [["l", n], *range(n)]


def _count_down(n: int) -> list:
    return [["l", n], *range(n)[::-1]]


SCALARS = [1, -1, "a", True, None, float("nan"), 1.5, ["i", "0x" + "f" * 100]]
# Functions of n that return an encoded value of about n parts.
VALUES = st.sampled_from(
    [
        *(lambda n, part=part: [["l", n], *[part] * n] for part in SCALARS),
        _count_up,
        _count_down,
        lambda n: [["s", n], *range(n)],
        lambda n: [["l", list(range(n))]],
        lambda n: [["s", list(range(n))]],
        lambda n: [["s", n], *(["i", hex(i * (2**61 - 1))] for i in range(n))],
        lambda n: [["s", n], *([1] * n)],
        lambda n: [["l", n], *(part for i in range(n) for part in (["l", 1], i))],
        lambda n: [["d", n], *(part for i in range(n) for part in (i, "a"))],
        lambda n: [["d", n], *(part for i in range(n) for part in (str(i), "a"))],
        lambda n: [["d", n], *(part for i in range(n) for part in (float(i), i))],
        lambda n: [["l", n], *(part for _ in range(n) for part in (["d", 1], True, ["s", 0]))],
        lambda n: [
            ["s", n],
            *(p for i in range(n) for p in (["t", 12], *(-1 - (i >> b & 1) for b in range(12)))),
        ],
        lambda n: [["s", 1], *_make_chain("a", n)],
        lambda n: _make_chain("a", n),
        lambda n: [["l", 2], *_make_chain("a", n), *_make_chain("b", n)],
        lambda n: ["a" * 10 * n],
        lambda n: [["i", "0x" + "f" * 10 * n]],
        lambda n: [["q", [0, 10 ** (n % 4000), 1]]],
    ]
)


def _compare_value(sent: str, expected: object, rule: Comparison) -> bool:
    value = decode_returned_value(sent.encode(errors="surrogatepass"), expected)
    return is_matching_value(value, expected, rule)


def _build_value(parts: list) -> object:
    return decode_returned_value(json.dumps(parts).encode(), None)


def _assert_linear(compare: Callable, make_arguments: Callable[[int], tuple]) -> None:
    few, many = (count_steps(compare, *make_arguments(n)) for n in (100, 400))
    assert many <= GROWTH * few + CONSTANT, f"{few} and {many} steps"


@settings(max_examples=300, deadline=None)
@given(texts(), st.none() | texts(), RULES)
def test_the_steps_for_texts_are_linear(make_output, make_expected, rule):
    make_expected = make_expected or make_output
    _assert_linear(is_matching_text, lambda n: (make_output(n), make_expected(n), rule))


@settings(max_examples=300, deadline=None)
@given(VALUES, st.none() | VALUES, RULES)
@example(_count_up, _count_down, Comparison("any_order"))
def test_the_steps_for_values_are_linear(make_parts, make_other, rule):
    def make_arguments(n: int) -> tuple:
        return json.dumps(make_parts(n)), _build_value((make_other or make_parts)(n)), rule

    _assert_linear(_compare_value, make_arguments)


# What one call of C code costs is seen by the clock alone: quadratic cost grows 256-fold here.
SIZES, SLACK = (1 << 15, 1 << 19), 8


def _list_multiples(begin: int, end: int) -> str:
    return "\n".join(str(i * (2**61 - 1)) for i in range(begin, begin + end))


LONG_TEXTS = {
    "a long number": lambda n: ("1" * n, "1", ""),
    "a number but for its end": lambda n: ("1" * n + "x", "1", ""),
    "zeros": lambda n: ("0" * n, "0." + "0" * n, ""),
    "many digits in any order": lambda n: ("1" * n + "\n2", "2\n" + "1" * n, "any_order"),
    "many digits with tolerance": lambda n: ("1" * n, "1" * n + ".5", "tolerance"),
    "large exponents": lambda n: ("1e9999 " * (n // 7), "1e-9999 " * (n // 7), "tolerance"),
    "a gap": lambda n: ("a" + " " * n + "b", "a  b", ""),
    "gaps at the ends of lines": lambda n: (("a" + " " * 99 + "\n") * (n // 101), "a", ""),
    "carriage returns": lambda n: ("\r" * n + "a", "a", ""),
    "one line of words": lambda n: ("a " * (n // 2), "a b", "any_order"),
    "numbers whose Decimals have equal hashes": lambda n: (
        _list_multiples(0, n >> 5),
        _list_multiples(1, n >> 5),
        "any_order",
    ),
    "lines of one word": lambda n: ("a\n" * (n // 2), "b\n" * (n // 2), "any_order"),
}


def _make_equal_hashes(n: int) -> list:
    return [["s", n >> 5], *(["i", hex(i * (2**61 - 1))] for i in range(n >> 5))]


def _make_long_members(n: int) -> list:
    members = (
        [["t", 20], *[1] * 8, *(-1 - (i >> b & 1) for b in range(12))] for i in range(n >> 7)
    )
    return [["s", n >> 7], *itertools.chain(*members)]


LONG_VALUES = {
    "an integer": (lambda n: [["i", "0x" + "f" * n]], ""),
    "an integer as key": (lambda n: [["d", 1], ["i", "0x" + "f" * n], 1], ""),
    "equal hashes": (_make_equal_hashes, ""),
    "long members of equal hashes": (_make_long_members, ""),
    "members in any order": (lambda n: [["l", n >> 4], *range(n >> 4)], "any_order"),
    "one text": (lambda n: ["a" * n], "any_order"),
}


def _assert_linear_time(compare: Callable, make_arguments: Callable[[int], tuple]) -> None:
    def measure(n: int) -> float:
        output, expected, rule = make_arguments(n)
        comparison = Comparison(rule or "strict", relative=1e-6)
        times = []
        for _ in range(5):
            begin = time.thread_time()
            compare(output, expected, comparison)
            times.append(time.thread_time() - begin)
        return min(times)

    small, large = map(measure, SIZES)
    # At least a millisecond, because a shorter call measures the clock.
    assert large <= SLACK * SIZES[1] / SIZES[0] * max(small, 1e-3), f"{small:g} and {large:g} s"


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_the_time_for_long_texts_is_linear(name):
    _assert_linear_time(is_matching_text, LONG_TEXTS[name])


@pytest.mark.parametrize("name", LONG_VALUES)
def test_the_time_for_long_values_is_linear(name):
    make_parts, rule = LONG_VALUES[name]

    def make_arguments(n: int) -> tuple:
        parts = make_parts(n)
        return json.dumps(parts), _build_value(parts), rule

    _assert_linear_time(_compare_value, make_arguments)
