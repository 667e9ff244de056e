"""The example of a custom reward, loaded as verl does."""

import asyncio
import inspect
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from verl_pipeline.filters.infrastructure import InfrastructureFilter
from verl_pipeline.filters.protocol import BatchView, Decision
from verl_pipeline.sandbox import Sandbox, SandboxError

pytestmark = pytest.mark.timeout(180)
EXAMPLE_PATH = Path(__file__).parents[3] / "examples" / "custom_reward" / "reward.py"
RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"
WRONG = "```python\nprint(3)\n```"


@pytest.fixture(scope="module")
def reward():
    from verl.trainer.ppo.reward import get_custom_reward_fn

    settings = {"path": str(EXAMPLE_PATH), "name": "compute_score", "reward_kwargs": {"workers": 1}}
    return get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": settings}}))


def score_response(reward, response, tests="1 2 => 3\n3 4 => 7"):
    # Called as verl.experimental.reward_loop does.
    return asyncio.run(
        reward(
            data_source="mine",
            solution_str=response,
            ground_truth=tests,
            extra_info={"index": 7, "num_turns": 2},
        )
    )


def test_verl_recognizes_a_coroutine_function(reward):
    assert inspect.iscoroutinefunction(reward)


def test_verdicts_and_keys_suit_the_infrastructure_filter(reward, monkeypatch):
    results = [
        score_response(reward, response)
        for response in (RIGHT, WRONG, "no code", RIGHT + " " * 1000)
    ]
    assert [result["verdict"] for result in results] == [
        "accepted",
        "wrong_answer",
        "no_code",
        "accepted",
    ]
    assert (
        1.1 > results[0]["score"] > results[3]["score"] > 1.0
        and results[1]["score"] == results[2]["score"] == 0.0
    )

    def fail(self):
        raise SandboxError("planted: stopped")

    monkeypatch.setattr(Sandbox, "lend_worker", fail)
    results.append(score_response(reward, RIGHT))
    assert (results[-1]["verdict"], results[-1]["score"]) == ("infrastructure", 0.0)
    assert "planted" in results[-1]["reason"]
    assert (
        len({tuple((key, type(value)) for key, value in result.items()) for result in results}) == 1
    )

    batch = BatchView(
        uids=["a"] * len(results),
        sessions=np.arange(len(results)),
        rewards=np.array([result["score"] for result in results]),
        verdicts=[result["verdict"] for result in results],
        response_lengths=np.ones(len(results), dtype=np.int64),
        limits=np.full(len(results), 8),
        truncated=np.zeros(len(results), dtype=bool),
    )
    assert InfrastructureFilter().decide(batch) == [Decision.KEEP] * 4 + [Decision.DROP]


def test_a_wrong_test_format_is_refused(reward):
    with pytest.raises(ValueError, match="problem 7: not a test: '1 2 3'"):
        score_response(reward, RIGHT, tests="1 2 3")
