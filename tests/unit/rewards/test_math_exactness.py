"""Nearby numbers differ for the reward for mathematics, and one number equals all its spellings."""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.math_reward import get_verdict, score_response

pytest.importorskip("math_verify")
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("no_other_verifiers")]
PROPERTY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

fractions = st.builds(Fraction, st.integers(-(10**6), 10**6), st.integers(1, 10**6))
# From 0 to far below what floating point tells apart.
differences = st.one_of(
    st.just(Fraction(0)),
    st.builds(
        lambda digit, power: Fraction(digit, 10**power), st.integers(-9, 9), st.integers(5, 60)
    ),
)


def write_fraction(value):
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def accepts(answer, expected):
    verdict = get_verdict(answer, expected)
    assert verdict in ("accepted", "wrong_answer")
    return verdict == "accepted"


@PROPERTY
@given(fractions, differences)
def test_fractions_are_equal_if_they_are_the_same(value, difference):
    other = value + difference
    assert accepts(write_fraction(other), write_fraction(value)) == (other == value)


@PROPERTY
@given(
    st.sampled_from(
        ["({}, 7)", "\\{{{}, 7\\}}", "[{}, 10^7]", "7, {}", "x \\le {}", "x = {}", "{}x"]
    ),
    fractions,
    differences,
)
def test_fractions_within_other_answers_are_equal_if_they_are_the_same(form, value, difference):
    answer, expected = (
        form.format(write_fraction(number)) for number in (value + difference, value)
    )
    assert accepts(answer, expected) == (difference == 0)


@PROPERTY
@given(st.integers(2, 40), st.integers(-80, 80), st.integers(2, 40), st.integers(-80, 80))
def test_powers_are_equal_if_their_values_are(base, exponent, other_base, other_exponent):
    answer, expected = f"{other_base}^{{{other_exponent}}}", f"{base}^{{{exponent}}}"
    same = Fraction(base) ** exponent == Fraction(other_base) ** other_exponent
    assert accepts(answer, expected) == same


@PROPERTY
@given(st.integers(2, 10**6), st.integers(2, 5), differences)
def test_roots_are_equal_if_their_radicands_are(radicand, degree, difference):
    answer, expected = (
        f"\\sqrt[{degree}]{{{write_fraction(number)}}}"
        for number in (radicand + difference, Fraction(radicand))
    )
    assert accepts(answer, expected) == (difference == 0)


@PROPERTY
@given(st.integers(-(10**20), 10**20), st.integers(1, 30), st.integers(-3, 3))
def test_decimals_are_equal_if_they_are_the_same(digits, places, difference):
    sign = "-" if digits < 0 else ""

    def write_decimal(number):
        text = str(number).rjust(places + 1, "0")
        return f"{sign}{text[:-places]}.{text[-places:]}"

    number = abs(digits)
    other = abs(number + difference)
    expected = write_fraction(Fraction(-number if sign else number, 10**places))
    assert accepts(write_decimal(other), expected) == (other == number)
    assert accepts(write_decimal(other), write_decimal(number)) == (other == number)


@PROPERTY
@given(
    fractions.filter(lambda value: value.denominator % 3 == 0),
    st.integers(0, 20),
    st.integers(-2, 3),
)
def test_a_decimal_stands_for_a_fraction_if_it_is_rounded_or_cut_off(value, places, difference):
    shifted = abs(value) * 10**places
    cut_off = shifted.numerator // shifted.denominator
    rounded = (2 * shifted.numerator + shifted.denominator) // (2 * shifted.denominator)
    digits = max(0, cut_off + difference)
    text = str(digits).rjust(places + 1, "0")
    decimal = ("-" if value < 0 else "") + (
        f"{text[:-places]}.{text[-places:]}" if places else text
    )
    has_enough_digits = places > 0 and digits >= 10**5
    assert accepts(decimal, write_fraction(value)) == (
        has_enough_digits and digits in (cut_off, rounded)
    )


WRAPPERS = [
    "{}", "\\text{{{}}}", "\\textbf{{{}}}", "\\mathbf{{{}}}", "\\mathrm{{{}}}", "\\mbox{{{}}}",
    "\\boldsymbol{{{}}}", "\\underline{{{}}}", "\\color{{red}}{{{}}}", "\\Large{{{}}}", "x = {}",
    "\\textcolor{{blue}}{{{}}}", "{{\\large {}}}", "\\boxed{{{}}}", "\\displaystyle {}",
    "{{\\bf {}}}",
]  # fmt: skip
UNITS = [
    "", " cm", "\\text{ cm}", "\\,\\mathrm{m/s}", "^\\circ", "°", "\\degree", "{}^\\circ",
    "\\text{ units}^2", "\\ \\textbf{ degrees}",
]  # fmt: skip
SEPARATORS = ["", ",", "{,}", "\\,", "\\text{,}", "\\ ", " ", "\u202f"]


@PROPERTY
@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(WRAPPERS),
    st.sampled_from(WRAPPERS),
    st.sampled_from(UNITS),
    st.sampled_from(SEPARATORS),
    st.integers(0, 2),
    st.sampled_from(["-", "−"]),
    st.integers(-1, 1),
)
def test_an_integer_equals_all_its_spellings(
    number, inner, outer, unit, separator, zeros, minus, difference
):
    groups = f"{abs(number):,}".split(",")
    text = separator.join(groups)
    if len(groups) == 1 or not separator:
        text = "0" * zeros + text
    text = (minus if number < 0 else "") + text
    if outer == "x = {}" or inner == "x = {}":
        outer = inner = "{}"
    answer = outer.format(inner.format(text)) + unit
    assert accepts(answer, str(number + difference)) == (difference == 0)


@PROPERTY
@given(
    st.integers(0, 99),
    st.text("0123456789", max_size=4),
    st.text("0123456789", min_size=1, max_size=6),
    st.sampled_from(["\\overline{{{}}}", "\\bar{{{}}}", "({})", "dots", "continued"]),
    st.booleans(),
)
def test_a_repeating_decimal_equals_its_fraction(whole, start, period, form, is_expected):
    digits = len(start)
    value = Fraction(int(f"{whole}{start}" or "0"), 10**digits) + Fraction(
        int(period), 10**digits * (10 ** len(period) - 1)
    )
    if form == "dots":
        repetend = "".join(
            f"\\dot{{{digit}}}" if index in (0, len(period) - 1) else digit
            for index, digit in enumerate(period)
        )
    elif form == "continued":
        repetend = period * 6 + "\\ldots"
    else:
        repetend = form.format(period)
    pair = [f"{whole}.{start}{repetend}", write_fraction(value)]
    assert accepts(*(reversed(pair) if is_expected else pair))
    pair[1] = write_fraction(value + Fraction(1, 10**40))
    assert not accepts(*(reversed(pair) if is_expected else pair))


@PROPERTY
@given(
    st.sampled_from(
        ["{}/2", "{}+y", "\\frac{{{}}}{{3}}", "{}_1", "f({})", "({}, 1)", "\\{{{}\\}}"]
    ),
    st.sampled_from("abcdfghkmnpqrstuvwxyz"),
)
def test_symbols_keep_their_case(form, letter):
    assert accepts(form.format(letter), form.format(letter))
    assert not accepts(form.format(letter.upper()), form.format(letter))
    assert not accepts(form.format(letter), form.format(letter.upper()))


def test_integers_of_more_than_4300_digits_are_compared():
    number = "9" * 5000
    assert accepts(number, number)
    assert accepts(f"{number}.0", number) and accepts("10^{5000}-1", number)
    assert not accepts("9" * 4999 + "8", number)
    assert not accepts("10^{5000}", number)
    assert "characters" in score_response(f"\\boxed{{{'9' * 5000}}}", "9")["reason"]
