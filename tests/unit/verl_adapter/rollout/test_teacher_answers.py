"""A teacher's log-prob that is missing is named and masked, and never a number."""

import asyncio
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from verl_pipeline.filters import BatchView
from verl_pipeline.filters.filter_chain import apply_filters
from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopWorker
from verl_pipeline.verl_adapter.rollout.teacher_answers import (
    UnusableTeacherAnswer,
    check_teacher_answer,
)

PROMPT, RESPONSE = [5, 6, 7], [8, 9]
SEQUENCE = PROMPT + RESPONSE


def make_output():
    return AgentLoopOutput(
        prompt_ids=PROMPT,
        response_ids=RESPONSE,
        response_mask=[1, 1],
        reward_score=1.0,
        metrics=AgentLoopMetrics(),
        extra_fields={"reward_extra_info": {"score": 1.0, "verdict": "accepted"}},
    )


def make_answer(log_probs=(-1.0, -1.0, -0.5, -0.25, 0.0), ids=(6, 7, 8, 9, 0)):
    """As verl's servers give it: entry i is about token i + 1, the last about none."""
    return torch.tensor(ids, dtype=torch.int32)[:, None], torch.tensor(log_probs)[:, None]


def score(answer, *, use_topk=False, topk=3):
    """Run our worker's own method, with a teacher that gives ``answer`` or raises it."""

    async def compute_teacher_logprobs_single(**_kwargs):
        if isinstance(answer, Exception):
            raise answer
        return answer

    worker = object.__new__(PipelineAgentLoopWorker)
    worker.distillation_enabled, worker.teacher_key = True, "data_source"
    loss = SimpleNamespace(loss_settings=SimpleNamespace(use_topk=use_topk), topk=topk)
    worker.teacher_server_manager = SimpleNamespace(
        distillation_loss_config=loss,
        compute_teacher_logprobs_single=compute_teacher_logprobs_single,
    )
    output = make_output()
    asyncio.run(worker._compute_teacher_logprobs(output, PROMPT, RESPONSE, False, {}))
    return output


def test_a_whole_answer_is_kept_as_it_is():
    output = score(make_answer())
    assert output.reward_score == 1.0
    assert output.extra_fields["teacher_logprobs"][:, 0].tolist() == [-1, -1, -0.5, -0.25, 0]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (RuntimeError("the server is gone"), "RuntimeError: the server is gone"),
        (make_answer((-1.0, -1.0, -0.5, math.nan, 0.0)), "no log-prob of response token 1"),
        (make_answer((-1.0, -1.0, -math.inf, -1.0, 0.0)), "no log-prob of response token 0"),
        (make_answer((-1.0, 0.0), (6, 0)), "log-probs of 2 tokens, expected 5"),
        (make_answer(ids=(6, 7, 8, 99, 0)), "scored token 99 as response token 1, which is 9"),
    ],
)
def test_what_a_teacher_does_not_say_is_named_and_is_no_number(answer, named):
    output = score(answer)
    report = output.extra_fields["reward_extra_info"]
    assert report["verdict"] == "infrastructure" and "score" not in report
    assert report["reason"].startswith("teacher: ") and named in report["reason"]
    assert "\n" not in report["reason"]
    assert output.extra_fields["teacher_logprobs"].shape == (5, 1)
    assert bool(output.extra_fields["teacher_logprobs"].isnan().all())


def test_a_row_without_a_teacher_leaves_the_batch_whatever_filters_there_are():
    rewards = [score(make_answer()).reward_score, score(RuntimeError("x")).reward_score]
    view = BatchView(
        uids=["a", "a"],
        sessions=np.array([0, 1]),
        rewards=np.array(rewards),
        verdicts=["accepted", "infrastructure"],
        truncated=np.array([False, False]),
        response_lengths=np.array([2, 2]),
        limits=np.array([16, 16]),
    )
    assert apply_filters([], view).kept.tolist() == [0]


def test_the_missing_log_probs_of_a_top_k_loss_have_its_width():
    output = score(RuntimeError("gone"), use_topk=True)
    assert output.extra_fields["teacher_logprobs"].shape == (5, 3)


def test_a_top_k_answer_need_not_hold_the_students_tokens():
    ids = torch.zeros(5, 3, dtype=torch.int32)
    output = score((ids, torch.full((5, 3), -1.0)), use_topk=True)
    assert output.reward_score == 1.0
    with pytest.raises(UnusableTeacherAnswer, match="token 0 as response token 0"):
        check_teacher_answer(output, SEQUENCE, uses_topk=False)


def test_numbers_of_the_prompt_do_not_matter():
    assert score(make_answer((math.nan, math.nan, -0.5, -0.25, 0.0))).reward_score == 1.0
