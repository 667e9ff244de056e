"""Numbers are rounded by one rule, in every output."""

import ast
import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.number_formats import (
    format_decimal,
    format_gain,
    format_interval,
    format_percent,
    format_points,
    format_score,
    to_percent,
)

ROOT = Path(__file__).parents[2]
NUMBERS = st.floats(-1e6, 1e6) | st.integers(-4000, 4000).map(lambda n: n / 16) | st.just(-0.0)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0625, "6.3 %"),
        (0.0645, "6.5 %"),
        (1 / 3, "33.3 %"),
        (0.9995, "100.0 %"),
        (-0.0625, "-6.3 %"),
        (-0.0001, "0.0 %"),
        (1e-300, "0.0 %"),
        (1, "100.0 %"),
    ],
)
def test_halves_are_rounded_away_from_zero(share, text):
    assert format_percent(share) == text


def test_the_formats():
    assert format_decimal(1234567.5, 0, group=True) == "1,234,568"
    assert format_decimal(0.5, 0) == "1" and format_decimal(2.5, 0) == "3"
    assert format_points(0.0625) == "+6.3" and format_points(-0.00001) == "+0.0"
    assert format_score({"value": 0.0625, "low": None, "high": None}) == "6.3 %"
    assert format_score({"value": 0.0625, "low": 0.01, "high": 0.1}) == "6.3 % [1.0, 10.0]"
    assert format_score(None) == "-"
    gain = {"value": 0.0625, "low": -0.0625, "high": 0.1}
    assert format_gain(gain) == "+6.3 [-6.3, +10.0] points"
    assert format_gain({**gain, "low": None}) == "+6.3 points"
    assert format_decimal(math.inf) == "inf" and format_decimal(math.nan) == "nan"
    assert to_percent(0.0625) == 6.25 and to_percent(0.07) == 7.0


@given(NUMBERS, st.integers(0, 4))
def test_the_rule_is_half_away_from_zero_of_the_shortest_decimal(value, digits):
    scaled = abs(Fraction(repr(value))) * 10**digits
    rounded = math.floor(scaled + Fraction(1, 2))
    expected = f"{rounded // 10**digits}.{rounded % 10**digits:0{digits}}".rstrip(
        "." if not digits else ""
    )
    if not digits:
        expected = str(rounded)
    sign = "-" if value < 0 and rounded else ""
    assert format_decimal(value, digits) == sign + expected
    assert format_percent(value, digits) == f"{format_decimal(to_percent(value), digits)} %" or (
        abs(value) > 1e4 or len(repr(value)) > 15  # the product itself is rounded
    )


def test_no_output_rounds_by_another_rule():
    """Whole seconds in messages (``.0f``) may; they are no results."""
    # Coordinates of plots, programs inside the jail, memory in doctor's table.
    exempt = {
        "benchmarks/emulated_plot.py",
        "benchmarks/pipeline_plot.py",
        "verl_pipeline/doctor.py",
    }
    found = []
    for room in ("verl_pipeline", "benchmarks", "examples"):
        for path in (ROOT / room).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if name in exempt or "sandbox/inside" in name:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
                    spec = ast.unparse(node.format_spec)
                    if re.search(r"[0-9]%|,\.\d+f|\.[1-9]\d*f|\}f", spec):
                        found.append(f"{name}:{node.lineno}: {spec}")
    for path in (ROOT / "verl_pipeline").rglob("*.jinja"):
        found += [path.name] * ("|format" in path.read_text())
    assert found == []


def test_estimates_with_and_without_bounds():
    assert format_interval(1.005, 0.995, 1.2, 2) == "1.01 [1.00, 1.20]"
    assert format_interval(0.0625, None, None, 3, sign=True) == "+0.063"
