"""The rollout benchmark's plan and its child processes; the engines themselves run in the benchmark
only.
"""

import contextlib

import psutil
import pytest

from benchmarks import rollout
from benchmarks.rollout_engines import GROUP, MAX_LENGTH, Case, Servers, Work, _check, requests_of


class _Words:
    """A tokenizer by white space."""

    def apply_chat_template(self, messages, **_options):
        return messages[0]["content"].split()


def test_long_tail_has_the_tokens_of_equal_lengths():
    equal, tail = Work(16, False, 28).lengths(), Work(16, True, 28).lengths()
    assert sum(equal) == sum(tail) == GROUP * 28
    assert max(tail) == 70 <= MAX_LENGTH


def test_each_measurement_has_prompts_of_its_own_and_of_one_length():
    found = [requests_of(Work(16, False, 28, nonce), _Words()) for nonce in (1, 20)]
    texts = [messages[0]["content"] for requests in found for messages, _ids, _lengths in requests]
    assert len(set(text.split()[0] for text in texts)) == len(texts) == 8
    assert len({len(ids) for requests in found for _messages, ids, _lengths in requests}) == 1


def test_cases_vary_one_factor():
    for servers, cases in rollout.FULL:
        changed = [
            name
            for name, value in vars(servers).items()
            if value != vars(Servers())[name] and name != "name"
        ]
        assert len(changed) <= 1
        for case in cases:
            factors = {
                name for name, value in vars(case).items() if value != vars(rollout.BASE)[name]
            } - {"name"}
            # Straight to the client there is nobody who would ask for a reward.
            assert len(factors - ({"reward_s"} if not case.agent_loop else set())) <= 1


def test_other_lengths_than_asked_for_are_an_error():
    with pytest.raises(RuntimeError, match="the pool"):
        _check([4, 3], [4, 4], "the pool")


def test_summary_compares_rounds():
    repeats = [{"seconds": 2.0, "offline_seconds": 1.0}, {"seconds": 4.0, "offline_seconds": 2.0}]
    found = rollout.summary(Servers(), Case("base"), repeats, mean_tokens=10)
    assert found["tokens_per_s"]["max"] == 80.0 and found["trajectories_per_s"]["max"] == 8.0
    assert found["offline_tokens_per_s"]["max"] == 160.0
    assert found["pool_over_offline"] == pytest.approx({"ratio": 0.5, "low": 0.5, "high": 0.5})
    assert rollout.row(found)["pool / offline"] == "0.50 [0.50, 0.50]"


def test_a_child_that_fails_or_keeps_silent_is_named_and_ends(tmp_path):
    # nullcontext takes one argument: whatever is to be started with two fails.
    child = rollout.Child(contextlib.nullcontext, Servers(), "model", "the pool", tmp_path / "log")
    try:
        with pytest.raises(
            TimeoutError, match=r"the pool \(1 replica\): no answer for 0 s to: start"
        ):
            child.answer(0.0, "start")
        with pytest.raises(
            RuntimeError, match=r"(?s)the pool \(1 replica\) failed at: start.*TypeError"
        ):
            child.answer(60.0, "start")
        with pytest.raises(RuntimeError, match="ended during: more"):
            child.answer(60.0, "more")
    finally:
        child.ask_to_end()
        child.end()
    assert not psutil.pid_exists(child._process.pid)
