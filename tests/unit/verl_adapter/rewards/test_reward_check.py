"""Every way in which a reward function can return, through verl's own reward manager and agent
loop worker, our filters and each of verl's advantage estimators.

Only Ray's transport is left out; tests/e2e/test_failures.py has it.
"""

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.reward_loop.reward_manager import (
    DAPORewardManager,
    GDPORewardManager,
    NaiveRewardManager,
)
from verl.experimental.reward_loop.reward_manager.limited import RateLimitedRewardManager
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from tests.helpers.patience import scale_deadline
from verl_pipeline.filters import BatchView, load_filters
from verl_pipeline.filters.filter_chain import apply_filters
from verl_pipeline.trainer.reward_value import mark_unusable
from verl_pipeline.verl_adapter.rewards.reward_check import RewardCheckingWorker
from verl_pipeline.verl_adapter.rewards.reward_workers import _bound_calls
from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopWorker

pytestmark = pytest.mark.filterwarnings("ignore")


class Tokenizer:
    def decode(self, ids, skip_special_tokens=True):
        return " ".join(str(int(token)) for token in ids)


class Worker:
    """Stands for the handle of a reward worker: an actor's method has ``remote``."""

    def __init__(self, run_single):
        self.compute_score = SimpleNamespace(remote=run_single)


def make_output():
    return AgentLoopOutput(
        prompt_ids=[1, 2], response_ids=[3, 4, 5], response_mask=[1, 1, 1], metrics={}
    )


def run_reward(
    compute_score, *, manager=NaiveRewardManager, worker=RewardCheckingWorker, reward_s=None
):
    """The output of an agent loop after verl's own manager has asked ``compute_score``."""

    async def run():
        config = OmegaConf.create({"reward": {"timeout": 0.05}})
        handle = Worker(manager(config, Tokenizer(), compute_score).run_single)
        made = object.__new__(worker)
        made.reward_loop_worker_handles, made.processor = [handle], None
        made._get_mm_processor_kwargs = lambda _audios: None
        if reward_s is not None:
            made._watch_stalls(trajectory_s=60, reward_s=reward_s)
        output = make_output()
        kwargs = {
            "uid": "p0",
            "session_id": 0,
            "data_source": "tiny",
            "reward_model": {"ground_truth": "a"},
            "extra_info": {},
        }
        await made._compute_score([output], kwargs)
        return output

    return asyncio.run(run())


def fail(**_kwargs):
    raise ValueError("planted: this reward raises")


async def fail_later(**_kwargs):
    raise KeyError("planted")


def give(value):
    return lambda **_kwargs: value


USABLE = {
    "number": (give(0.5), 0.5),
    "bool": (give(True), 1.0),
    "dict": (give({"score": 0.5, "acc": 1.0}), 0.5),
    "dict with NaN beside the score": (give({"score": 0.5, "format": float("nan")}), 0.5),
    "float32": (give(np.float32(0.5)), 0.5),
    "0-d array": (give(np.array(0.5)), 0.5),
    "1-d tensor": (give(torch.tensor([0.5])), 0.5),
    "dict of a tensor": (give({"score": torch.tensor(0.5)}), 0.5),
}
UNUSABLE = {
    "None": give(None),
    "NaN": give(float("nan")),
    "infinity": give(float("inf")),
    "minus infinity": give(float("-inf")),
    "dict of NaN": give({"score": float("nan"), "acc": 0.0, "verdict": "accepted"}),
    "dict of None": give({"score": None}),
    "dict without score": give({"acc": 1.0}),
    "empty dict": give({}),
    "NaN tensor": give(torch.tensor(float("nan"))),
    "tensor of two": give(torch.tensor([0.5, 0.5])),
    "numpy NaN": give(np.float32("nan")),
    "long integer": give(10**400),
    "large float": give(1e39),
    "text": give("0.5"),
    "list": give([0.5]),
    "tuple": give((0.5, {"why": "x"})),
    "exception": fail,
    "exception of a coroutine": fail_later,
}


@pytest.mark.parametrize("compute_score", [give(0.5), fail])
def test_the_end_of_the_generation_is_told_before_the_reward(compute_score):
    asked = []

    def grade(**kwargs):
        asked.append(time.time())
        return compute_score(**kwargs)

    output = run_reward(grade)
    assert 0 < output.extra_fields["generated_at"] <= asked[0]


@pytest.mark.parametrize("name", USABLE)
def test_a_reward_arrives_as_a_float(name):
    compute_score, reward = USABLE[name]
    output = run_reward(compute_score)
    assert output.reward_score == reward and type(output.reward_score) is float
    assert "verdict" not in output.extra_fields["reward_extra_info"]
    assert output.as_dict()["rm_scores"].tolist() == [0, 0, reward]


@pytest.mark.parametrize("name", UNUSABLE)
def test_anything_else_is_a_failure_of_the_grader(name):
    output = run_reward(UNUSABLE[name])
    report = output.extra_fields["reward_extra_info"]
    assert report["verdict"] == "infrastructure" and report["reason"]
    assert math.isnan(output.reward_score) and "acc" not in report
    assert math.isnan(output.as_dict()["rm_scores"].sum())


def test_the_reason_has_the_traceback_of_an_exception_and_names_a_value():
    report = run_reward(fail).extra_fields["reward_extra_info"]
    assert "planted: this reward raises" in report["reason"] and "in fail" in report["reason"]
    report = run_reward(give("0.5")).extra_fields["reward_extra_info"]
    assert report["reason"] == ("the reward function returned '0.5' (str), not a finite number")


async def hang(**_kwargs):
    await asyncio.sleep(60)


@pytest.mark.parametrize("compute_score", [fail, hang])
def test_a_failure_that_verls_rate_limited_manager_calls_0_is_none(compute_score):
    output = run_reward(compute_score, manager=RateLimitedRewardManager)
    assert output.extra_fields["reward_extra_info"]["verdict"] == "infrastructure"
    assert math.isnan(output.reward_score)
    given = {"score": 0.0, "error": "a word of the user's", "acc": 0.0}
    output = run_reward(give(given), manager=RateLimitedRewardManager)
    assert output.reward_score == 0.0


def test_a_reward_without_an_answer_is_a_failure_of_the_grader():
    output = run_reward(hang, worker=PipelineAgentLoopWorker, reward_s=0.05)
    reason = output.extra_fields["reward_extra_info"]["reason"]
    assert "reward of p0_0: no progress for " in reason
    assert "it waits for the reward workers, where nothing ended" in reason
    assert "(trainer.v1.one_off_pipeline.deadlines.reward_s=0.05)" in reason


@pytest.fixture
def stuck():
    """A synchronous reward function that hangs until the test ends."""
    opened = threading.Event()

    def wait_for_ever(**_kwargs):
        opened.wait()

    wait_for_ever.opened = opened
    yield wait_for_ever
    opened.set()


@pytest.mark.parametrize(
    ("manager", "reason"),
    [
        (NaiveRewardManager, "wait_for_ever has not returned for 0.05 s"),
        (GDPORewardManager, "wait_for_ever has not returned for 0.05 s"),
        (DAPORewardManager, "wait_for_ever has not returned for 0.05 s"),
        (RateLimitedRewardManager, "the reward manager reports timeout"),
    ],
)
def test_a_synchronous_reward_that_hangs_gives_its_thread_back(manager, reason, stuck):
    """In each of verl's managers that call it in the threads of a reward worker's event loop."""

    class Bounded(manager):
        def __init__(self, config, *args):
            more = {"reward": {"timeout": 60}, "trainer": {"experiment_name": "x"}}
            config = OmegaConf.merge(config, more)
            super().__init__(config, *args)
            _bound_calls(SimpleNamespace(reward_manager=self), reward_s=0.05)

        async def run_single(self, data):
            self.loop = asyncio.get_running_loop()
            self.loop.set_default_executor(ThreadPoolExecutor(1))
            try:
                return await super().run_single(data)
            finally:
                free = self.loop.run_in_executor(None, lambda: "free")
                try:
                    await asyncio.wait_for(asyncio.shield(free), scale_deadline(10))
                finally:
                    stuck.opened.set()

    report = run_reward(stuck, manager=Bounded).extra_fields["reward_extra_info"]
    assert report["verdict"] == "infrastructure" and reason in report["reason"]


def test_a_reward_that_a_replaced_worker_owed_is_asked_of_another():
    """One that nothing replaces within the reward's deadline has failed."""

    async def run(*, is_replaced):
        made = object.__new__(PipelineAgentLoopWorker)
        made._watch_stalls(trajectory_s=60, reward_s=60 if is_replaced else 0.2)
        made.processor, made._get_mm_processor_kwargs = None, lambda _audios: None

        async def grade(_data):
            return {"reward_score": 0.5, "reward_extra_info": {}}

        async def die(_data):
            if is_replaced:
                await made.use_reward_workers([Worker(grade)])
            raise ray.exceptions.RayActorError

        made.reward_loop_worker_handles = [Worker(die)]
        output = make_output()
        await made._compute_score([output], {"uid": "p0", "session_id": 0})
        return output

    assert asyncio.run(run(is_replaced=True)).reward_score == 0.5
    output = asyncio.run(run(is_replaced=False))
    assert output.extra_fields["reward_extra_info"]["verdict"] == "infrastructure"


def test_a_trajectory_that_is_given_up_meanwhile_is_not_graded():
    async def give_up():
        async with asyncio.timeout(0.05):
            made = object.__new__(RewardCheckingWorker)

            async def request_reward(_outputs, _kwargs):
                await hang()

            made.request_reward = request_reward
            await made._compute_score([make_output()], {"uid": "p0", "session_id": 0})

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())


def test_a_reward_that_a_colocated_model_gives_later_is_left_to_it():
    async def run():
        made = object.__new__(RewardCheckingWorker)
        made.reward_loop_worker_handles = None
        output = make_output()
        await made._compute_score([output], {"uid": "p0", "session_id": 0})
        return output

    assert asyncio.run(run()).reward_score is None


@pytest.mark.parametrize(("score", "is_usable"), [(0.5, True), (float("nan"), False)])
def test_a_reward_model_that_reports_its_score_only_gives_a_reward(score, is_usable):
    """verl's worker for discriminative models answers with ``reward_score`` alone."""

    class Model(NaiveRewardManager):
        async def run_single(self, data):
            return {"reward_score": score}

    output = run_reward(None, manager=Model)
    verdict = output.extra_fields["reward_extra_info"].get("verdict")
    assert (output.reward_score == score, verdict) == (
        (True, None) if is_usable else (False, "infrastructure")
    )


LENGTH, GROUPS, MEMBERS = 4, 3, 4


def compute_advantages(rewards, estimator):
    """verl's advantages; ``rewards`` by (group, member)."""
    n = len(rewards)
    lengths = [2 + (group + member) % 3 for group, member in rewards]
    mask = torch.tensor([[float(at < length) for at in range(LENGTH)] for length in lengths])
    scores = torch.zeros(n, LENGTH)
    for row, reward in enumerate(rewards.values()):
        scores[row, lengths[row] - 1] = reward
    numbers = torch.tensor([group * MEMBERS + member for group, member in rewards])
    some = (numbers[:, None] * LENGTH + torch.arange(LENGTH)) / 100.0
    batch = {
        "token_level_rewards": scores,
        "response_mask": mask,
        "values": some * mask,
        "old_log_probs": -some - 0.1,
        "sum_pi_squared": torch.full((n, LENGTH), 0.5),
    }
    if estimator == "remax":
        batch["reward_baselines"] = some[:, 0]
    data = DataProto(
        batch=TensorDict(batch, batch_size=n),
        non_tensor_batch={"uid": np.array([f"p{group}" for group, _ in rewards], dtype=object)},
    )
    config = None if estimator == "gdpo" else OmegaConf.create({"gamma": 1.0})
    keys = [f"p{group}_{member}_0" for group, member in rewards]
    return compute_advantage_for_multi_trajectories(
        data, keys, adv_estimator=estimator, num_repeat=MEMBERS, config=config
    ).batch["advantages"]


def filter_rewards(rewards):
    """What our filters leave, without any filter configured."""
    n = len(rewards)
    view = BatchView(
        uids=[f"p{group}" for group, _ in rewards],
        sessions=np.array([member for _, member in rewards]),
        rewards=mark_unusable(np.array(list(rewards.values()))),
        verdicts=[None] * n,
        response_lengths=np.full(n, LENGTH),
        limits=np.full(n, LENGTH),
        truncated=np.zeros(n, dtype=bool),
    )
    filtered = apply_filters(load_filters([]), view)
    members = list(rewards.items())
    return dict(members[row] for row in filtered.kept), filtered


ESTIMATORS = [estimator.value for estimator in AdvantageEstimator]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", UNUSABLE)
def test_no_estimator_sees_it_and_its_siblings_stay(name, estimator):
    failing = run_reward(UNUSABLE[name]).as_dict()["rm_scores"].sum().item()
    rewards = {
        (group, member): float((group + member) % 2)
        for group in range(GROUPS)
        for member in range(MEMBERS)
    }
    planted = rewards | {(0, 1): failing, (2, 3): failing}
    without = {key: reward for key, reward in rewards.items() if key not in {(0, 1), (2, 3)}}
    left, filtered = filter_rewards(planted)
    assert list(left) == list(without)
    assert filtered.metrics["filters/no_reward/dropped"] == 2
    assert filtered.metrics["filters/before/reward_mean"] == np.mean(list(without.values()))
    advantages = compute_advantages(left, estimator)
    assert torch.isfinite(advantages).all() and advantages.abs().sum() > 0
    assert torch.equal(advantages, compute_advantages(without, estimator))
    # The planted fault: with that row, its siblings, or the whole batch, have no advantage.
    assert not torch.isfinite(compute_advantages(planted, estimator)).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("largest", [1e18, -1e18])
def test_every_estimator_endures_the_largest_reward(estimator, largest):
    rewards = {
        (group, member): largest if member == 0 else float(member)
        for group in range(GROUPS)
        for member in range(MEMBERS)
    }
    left, _filtered = filter_rewards(rewards)
    assert left == rewards
    assert torch.isfinite(compute_advantages(left, estimator)).all()
