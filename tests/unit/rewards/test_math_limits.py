"""Limits of CPU time, memory and wall-clock time of the reward for mathematics."""

import threading
import time

import pytest

from tests.helpers.math_reward import (
    ENDLESS,
    ENDLESS_IN_C,
    get_verdict,
    list_verifiers,
    score_response,
)
from tests.helpers.thinned import thin_out
from verl_pipeline.rewards import math as math_reward

pytest.importorskip("math_verify")
pytestmark = [
    pytest.mark.medium,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("no_other_verifiers"),
]


@pytest.mark.parametrize(
    "answer",
    thin_out(
        [ENDLESS, ENDLESS_IN_C, "(10^{10})!", "2^{2^{34}}", "(" * 990 + "5" + ")" * 990], keep=2
    ),
)
def test_an_answer_that_takes_too_much_cpu_time_is_wrong(monkeypatch, answer):
    monkeypatch.setattr(math_reward, "CPU_LIMIT_S", 0.5)
    result = score_response(f"\\boxed{{{answer}}}", "5")
    assert result["verdict"] == "wrong_answer"
    assert result["reason"] == "not compared within 0.5 s of CPU time"


@pytest.mark.parametrize(
    "answer",
    thin_out(
        [
            "{" * 990 + "x" + "}" * 990,
            "\\sqrt{" * 280 + "5" + "}" * 280,
            "\\frac{" * 240 + "5" + "}{1}" * 240,
            "-" * 1990 + "5",
            "1+" * 990 + "1",
            "2^{" * 490 + "5" + "}" * 490,
            "x" * 1990,
            "9" * 1990,
            "5" + "!" * 900,
            "\\begin{pmatrix}" + "1&" * 900 + "1\\end{pmatrix}",
            "\\operatorname{zeros}(10^{5},10^{5})",
            "|" * 1990,
        ],
        keep=4,
    ),
)
def test_an_answer_that_exhausts_the_process_is_wrong(monkeypatch, answer):
    monkeypatch.setattr(math_reward, "CPU_LIMIT_S", 1.0)
    assert get_verdict(answer, "5") == "wrong_answer"


def test_a_right_answer_is_accepted_after_a_wait_for_the_cpu(monkeypatch):
    monkeypatch.setattr(math_reward, "CPU_LIMIT_S", 1.0)
    assert get_verdict("2", "2") == "accepted"
    (verifier,) = list_verifiers()
    verifier.suspend()
    wake = threading.Timer(3.0, verifier.resume)
    wake.start()
    begin = time.monotonic()
    assert get_verdict("\\sqrt{4}", "2") == "accepted" and time.monotonic() - begin > 2.0
    wake.join()


def test_a_long_time_without_cpu_time_is_infrastructure(monkeypatch, replace_verifier):
    monkeypatch.setattr(math_reward, "WALL_LIMIT_S", 1.0)
    replace_verifier("import time; time.sleep(60)")
    result = score_response("\\boxed{2}", "2")
    assert result["verdict"] == "infrastructure" and "1 s passed" in result["reason"]
