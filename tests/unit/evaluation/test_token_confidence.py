"""Confidence of tokens, windows and votes by it; the replay of early stop, by hand."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.evaluation import confidence_methods, method_values
from verl_pipeline.evaluation.confidence_methods import ConfidenceWindows
from verl_pipeline.evaluation.engines import SampleRequest
from verl_pipeline.evaluation.engines.server_answers import read_answer
from verl_pipeline.evaluation.eval_settings import ConfidenceConfig
from verl_pipeline.evaluation.token_confidence import (
    find_stop,
    measure_lowest,
    measure_tail,
    measure_token,
    measure_windows,
    to_weight,
)

TOKENS = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@given(TOKENS, st.integers(1, 50))
def test_windows_are_the_means_of_their_tokens(tokens, window):
    width = min(window, len(tokens))
    expected = [statistics.fmean(tokens[i : i + width]) for i in range(len(tokens) - width + 1)]
    assert measure_windows(tokens, window) == pytest.approx(expected, abs=1e-9)
    assert measure_lowest(tokens, window) == pytest.approx(min(expected), abs=1e-9)
    assert measure_tail(tokens, window) == pytest.approx(expected[-1], abs=1e-9)


@given(TOKENS, st.integers(1, 50), st.floats(-50, 50))
def test_a_stopped_sample_was_above_the_threshold_until_its_stop(tokens, window, threshold):
    stop = find_stop(tokens, window, threshold)
    if len(tokens) < window:
        assert stop is None, "an engine that stops in the middle has seen no full window"
    elif stop is None:
        assert measure_lowest(tokens, window) >= threshold
    else:
        assert measure_windows(tokens[:stop], window)[-1] < threshold
        assert stop == window or measure_lowest(tokens[: stop - 1], window) >= threshold


def test_a_tokens_confidence_leaves_out_a_sampled_token_outside_the_top():
    ranked = [(9, -5.0), (1, -0.5), (2, -1.5)]
    assert measure_token(-5.0, ranked, 2) == 1.0
    assert measure_token(-5.0, ranked, 0) == -5.0
    assert measure_token(-math.inf, [(1, -math.inf)], 0) == -100.0


def test_weights():
    assert to_weight(math.log(0.5), 0) == pytest.approx(0.5)
    assert to_weight(3.5, 20) == 3.5


def make_answer(*tokens):
    content = [
        {"logprob": own, "top_logprobs": [{"logprob": value} for value in tops]}
        for own, *tops in tokens
    ]
    return {
        "choices": [
            {
                "message": {"content": "x"},
                "finish_reason": "stop",
                "logprobs": {"content": content},
            }
        ],
        "usage": {"completion_tokens": len(content), "prompt_tokens": 1},
    }


def test_a_servers_log_probs_become_confidences():
    request = SampleRequest("t", "a", 0, 1, ())
    answer = make_answer((-0.5, -0.5, -1.5), (-4.0, -1.0, -2.0))
    assert read_answer(request, answer, 9).token_confidences is None
    assert read_answer(request, answer, 9, top_logprobs=0).token_confidences == [-0.5, -4.0]
    assert read_answer(request, answer, 9, top_logprobs=2).token_confidences == [1.0, 1.5]
    assert read_answer(request, answer, 9, top_logprobs=3).token_confidences is None


def make_row(answer, reward, confidences):
    return {
        "answer": answer,
        "reward": reward,
        "tokens": len(confidences),
        "token_confidences": confidences,
    }


GOOD, BAD = [9.0] * 8, [9.0, 9.0, 9.0, 1.0, 1.0, 9.0, 9.0, 9.0]
# The mean over the whole sample of BAD2 exceeds GOOD's, but not its lowest window.
BAD2 = [20.0, 20.0, 20.0, 1.0, 1.0, 20.0, 20.0, 20.0]
ROWS = [
    make_row("right", 1.0, GOOD),
    make_row("wrong", 0.0, BAD2),
    make_row("wrong", 0.0, BAD2),
    make_row("wrong", 0.0, BAD),
    make_row("right", 1.0, GOOD),
]
GRADED = {"a": ROWS, "b": ROWS}


def list_methods(**settings):
    windows = ConfidenceWindows(ConfidenceConfig(window=2, **settings), 20)
    methods = confidence_methods.list_confidence_methods(GRADED, 5, windows)
    return {method.name: method for method in methods}


def test_the_lowest_window_decides_a_vote_that_the_majority_gets_wrong():
    methods = list_methods(keep=0.4, warmup=5)
    plain = method_values.vote(GRADED, 5, "", lambda _row: 1.0)
    assert plain.rewards["a"] == 0.0
    assert methods["vote of 5 weighted by lowest group confidence"].rewards["a"] == 1.0
    kept = methods["vote of 5 of its 2 most confident, by lowest group"]
    assert kept.rewards["a"] == 1.0 and kept.tokens["a"] == 40
    assert not any("stopped" in name for name in methods), "no sample is left after the warm-up"


def test_early_stop_spends_the_tokens_up_to_the_low_window_and_ignores_the_sample():
    config = ConfidenceConfig(window=2, keep=1.0, warmup=1, consensus=1.0)
    weigh = confidence_methods._Weigher(measure_lowest, 2, 20)
    # After one sample there is a consensus of 1: nothing more is generated.
    assert confidence_methods._replay_problem(ROWS, config, weigh) == (1.0, 8)
    config = ConfidenceConfig(window=2, keep=0.5, warmup=2, consensus=1.0)
    rows = [ROWS[0], make_row("other", 0.0, GOOD), ROWS[1], ROWS[4]]
    # The third falls below 9 in the window of its 3rd and 4th token? 10.5 does not; 1.0 does.
    assert confidence_methods._replay_problem(rows, config, weigh) == (1.0, 16 + 5 + 8)


def test_the_gain_is_over_a_plain_vote_of_as_many_tokens():
    spent = method_values.MethodValues("m", {"a": 1.0, "b": 1.0}, {"a": 8.0, "b": 8.0}, 5)
    gain = method_values.measure_gain(GRADED, spent)
    assert gain["value"] == pytest.approx(1 - 2 / 5), "8 tokens buy one sample, right in 2 of 5"
    between = method_values.MethodValues("m", spent.rewards, {"a": 36.0, "b": 36.0}, 5)
    fours = method_values.vote(GRADED, 4, "", lambda _row: 1.0).rewards["a"]
    gain = method_values.measure_gain(GRADED, between)
    assert gain["value"] == pytest.approx(1 - (fours + 0.0) / 2)
    assert gain["low"] < gain["value"] <= gain["high"]
