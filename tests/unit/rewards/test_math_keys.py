"""Expected answers: those of real data are told apart, and those that cannot be read are named."""

import json
import logging
import os
import random
from pathlib import Path

import pytest

from tests.helpers.math_reward import get_verdict, score_response
from verl_pipeline.rewards import math as math_reward

pytest.importorskip("math_verify")
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("no_other_verifiers")]
DATA = Path(
    os.environ.get("VERL_PIPELINE_DATA", Path(__file__).parents[3].parent / "shared" / "data")
)


def read_keys(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there (set VERL_PIPELINE_DATA)")
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if name.endswith(".json") else map(json.loads, text.split("\n")[:-1])
    return sorted({str(row["answer"]).rpartition("####")[2].strip() for row in rows})


@pytest.mark.parametrize("name", ["aime2024.json", "gsm8k_test.jsonl"])
def test_a_real_key_equals_itself_and_no_other(name):
    keys = read_keys(name)
    assert len(keys) > 25
    for key in keys:
        assert math_reward.find_unreadable_answer(key) is None
        # Text that differs from the key, so that values are compared.
        assert get_verdict(f"\\mathbf{{{key}}}", key) == "accepted"
    picker = random.Random(0)
    for _ in range(300):
        key, other = picker.sample(keys, 2)
        is_same = float(key.replace(",", "")) == float(other.replace(",", ""))
        assert (get_verdict(other, key) == "accepted") == is_same, (key, other)


@pytest.mark.parametrize(
    "expected",
    [
        "5", "-016", "1,000", "\\text{Monday}", "\\text{(C)}", "0.1\\overline{6}", "∞",
        "\\varnothing", "90°", "x \\in [1, 2)", "1 < x \\le 3", "\\{1, 2\\}", "y = 2x",
        "2\\sqrt{3} + \\pi", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "9" * 5000,
    ],
)  # fmt: skip
def test_a_key_that_can_be_read(expected):
    assert math_reward.find_unreadable_answer(expected) is None


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ("", "cannot be read"),
        ("\\text", "cannot be read"),
        ("1 2", "two numbers"),
        ("\\frac{1}{", "cannot be read"),
        ("x \\approx 5", "approximation"),
        ("(10^{10})!", "CPU time"),
    ],
)
def test_a_key_that_cannot_be_read(monkeypatch, expected, reason):
    monkeypatch.setattr(math_reward, "CPU_LIMIT_S", 2.0)
    assert reason in math_reward.find_unreadable_answer(expected)


def test_a_machine_that_cannot_compare_is_no_fault_of_the_key(replace_verifier):
    replace_verifier("import nothing_of_this_name")
    with pytest.raises(math_reward.ComparisonError, match="on this machine"):
        math_reward.find_unreadable_answer("5")


def test_a_key_that_cannot_be_read_is_reported_once(caplog):
    math_reward._report_unreadable_answer.cache_clear()
    with caplog.at_level(logging.ERROR):
        verdicts = [score_response(f"\\boxed{{{number}}}", "1 2") for number in range(5)]
    assert {result["verdict"] for result in verdicts} == {"infrastructure"}
    assert caplog.text.count("correct the row") == 1
