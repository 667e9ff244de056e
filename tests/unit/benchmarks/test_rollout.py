"""The rollout benchmark's plan and its child processes, without engines."""

import contextlib

import psutil
import pytest

from benchmarks import rollout, rollout_processes
from benchmarks.rollout_engines import (
    GROUP_SIZE,
    MAX_RESPONSE_TOKENS,
    RolloutCase,
    RolloutWork,
    ServerSettings,
    _check_lengths,
    make_requests,
)


class _WordTokenizer:
    """Splits at white space."""

    def apply_chat_template(self, messages, **_options):
        return messages[0]["content"].split()


def test_a_long_tail_has_as_many_tokens_as_equal_lengths():
    equal = RolloutWork(16, False, 28).list_lengths()
    tail = RolloutWork(16, True, 28).list_lengths()
    assert sum(equal) == sum(tail) == GROUP_SIZE * 28
    assert max(tail) == 70 <= MAX_RESPONSE_TOKENS


def test_each_measurement_has_its_own_prompts_of_one_length():
    found = [
        make_requests(RolloutWork(16, False, 28, nonce), _WordTokenizer()) for nonce in (1, 20)
    ]
    texts = [messages[0]["content"] for requests in found for messages, _ids, _lengths in requests]
    assert len(set(text.split()[0] for text in texts)) == len(texts) == 8
    assert len({len(ids) for requests in found for _messages, ids, _lengths in requests}) == 1


def test_cases_vary_one_factor():
    for servers, cases in rollout.FULL:
        changed = [
            name
            for name, value in vars(servers).items()
            if value != vars(ServerSettings())[name] and name != "name"
        ]
        assert len(changed) <= 1
        for case in cases:
            factors = {
                name for name, value in vars(case).items() if value != vars(rollout.BASE)[name]
            } - {"name"}
            # Without agent loops nothing computes a reward.
            assert len(factors - ({"reward_s"} if not case.agent_loop else set())) <= 1


def test_unexpected_lengths_are_an_error():
    with pytest.raises(RuntimeError, match="the pool"):
        _check_lengths([4, 3], [4, 4], "the pool")


def test_a_summary_pairs_the_rounds():
    repeats = [{"seconds": 2.0, "offline_seconds": 1.0}, {"seconds": 4.0, "offline_seconds": 2.0}]
    found = rollout.summarize_case(ServerSettings(), RolloutCase("base"), repeats, mean_tokens=10)
    assert found["tokens_per_s"]["max"] == 80.0 and found["trajectories_per_s"]["max"] == 8.0
    assert found["offline_tokens_per_s"]["max"] == 160.0
    assert found["pool_over_offline"] == pytest.approx({"ratio": 0.5, "low": 0.5, "high": 0.5})
    assert rollout.make_table_row(found)["pool / offline"] == "0.50 [0.50, 0.50]"


def test_a_child_that_fails_or_hangs_is_named_and_ended(tmp_path):
    # nullcontext takes one argument, so that a start with two arguments fails.
    log = tmp_path / "log"
    child = rollout_processes.EngineProcess(
        contextlib.nullcontext, ServerSettings(), "model", "the pool", log
    )
    try:
        with pytest.raises(
            TimeoutError, match=r"the pool \(1 replica\): no result after 0 s of: start"
        ):
            child.receive_result(0.0, "start")
        with pytest.raises(
            RuntimeError, match=r"(?s)the pool \(1 replica\) failed during: start.*TypeError"
        ):
            child.receive_result(60.0, "start")
        with pytest.raises(RuntimeError, match="ended during: more"):
            child.receive_result(60.0, "more")
    finally:
        child.request_end()
        child.wait_or_kill()
    assert not psutil.pid_exists(child._process.pid)
