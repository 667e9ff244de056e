"""Which log-probs are compared with which, and when none can be."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError

from verl_pipeline.trainer.pipeline_config import load_pipeline_config
from verl_pipeline.verl_adapter.rollout import log_prob_check, probed_trajectories
from verl_pipeline.verl_adapter.rollout.log_prob_check import (
    LogProbCheck,
    compute_gap,
    find_obstacle,
    read_log_prob,
)
from verl_pipeline.verl_adapter.rollout.probed_trajectories import (
    TrajectoryTokens,
    list_short_trajectories,
)

ROLLOUT = "actor_rollout_ref.rollout"
VOCABULARY = 30


def answer(tokens, table, top):
    """What verl's servers answer about a prompt: entry i is about token i + 1, the last is padding.

    ``table`` has the log-probs of the whole vocabulary at each position, (tokens, vocabulary).
    """
    ids, values = [], []
    for position in range(1, len(tokens)):
        row = table[position]
        chosen = np.argsort(-row, kind="stable")[:top] if top else [tokens[position]]
        ids.append([int(token) for token in chosen])
        values.append([float(row[token]) for token in chosen])
    width = max(top, 1)
    fields = {"prompt_ids": [*ids, [0] * width], "prompt_logprobs": [*values, [0.0] * width]}
    return SimpleNamespace(extra_fields=fields)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1.0, 0.6, 0.3]), st.floats(-0.5, 0.5))
def test_the_gap_is_that_of_the_responses_tokens(seed, temperature, shift):
    random = np.random.default_rng(seed)
    trajectories, trained, answers = [], [], []
    for index in range(3):
        prompt, response = (int(n) for n in random.integers(1, 9, 2))
        logits = random.normal(size=(prompt + response, VOCABULARY)) * 8
        tokens = [int(row.argmax()) for row in logits]
        raw = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scaled = logits / temperature
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        # Of a longer response: only its beginning was asked for.
        own = [scaled[prompt + i, tokens[prompt + i]] + shift for i in range(response)] + [7.0]
        trajectories.append(TrajectoryTokens(f"b1p{index}_0_0", tokens, prompt))
        trained.append(np.array(own))
        answers.append(answer(tokens, raw, 0 if temperature == 1.0 else 20))
    gap = compute_gap(trajectories, trained, answers, temperature)
    assert gap == pytest.approx(abs(shift), abs=2e-3)


def test_answers_of_interrupted_requests_do_not_count():
    entry = TrajectoryTokens("b1p0_0_0", [1, 2, 3], 2)
    interrupted = SimpleNamespace(extra_fields={"global_steps": 1})
    assert compute_gap([entry], [np.zeros(1)], [interrupted], 1.0) is None


def test_a_token_that_is_not_known_well_enough_is_left_out():
    top = [(1, math.log(0.5)), (2, math.log(0.1))]
    assert read_log_prob(top, 2, 1.0) == math.log(0.1)
    assert read_log_prob(top, 3, 1.0) is None
    assert read_log_prob(top, 1, 0.9) is None  # 0.4 of the mass is elsewhere
    assert read_log_prob([(1, math.log(0.99)), (None, None), (2, math.log(0.01))], 1, 0.5)


OBSTACLES = [
    (f"{ROLLOUT}.temperature", 1.0, None),
    (f"{ROLLOUT}.temperature", 0.6, None),
    (f"{ROLLOUT}.temperature", 1.2, "temperature=1.2, and an engine gives"),
    (f"{ROLLOUT}.temperature", 0.0, "temperature=0.0, and an engine gives"),
    ("algorithm.rollout_correction.bypass_mode", True, "bypass_mode=True, so the trainer"),
    (f"{ROLLOUT}.name", "trtllm", "rollout.name=trtllm gives none"),
    (f"{ROLLOUT}.name", "sglang", None),
    (f"{ROLLOUT}.logprobs_mode", "raw_logits", "so the engine gives logits"),
    (f"{ROLLOUT}.disaggregation.enabled", True, "the engine that decodes computes no prompt"),
    (f"{ROLLOUT}.engine_kwargs.vllm", {"kv_transfer_config": {"a": 1}}, "may skip tokens"),
]


def test_what_cannot_be_compared_has_a_reason(composed):
    stock = composed()
    for field, value, reason in OBSTACLES:
        config = copy.deepcopy(stock)
        OmegaConf.update(config, field, value, force_add=True)
        found = find_obstacle(config)
        assert (found is None) == (reason is None), (field, value, found)
        assert reason is None or reason in found


def test_short_trajectories_of_different_prompts_are_chosen(monkeypatch):
    def tag(prompt, response, **more):
        return {"prompt_len": prompt, "response_len": response, **more}

    tags = {
        "b2p0": {"is_prompt": True},
        "b2p0_0_0": tag(4, 9),
        "b2p0_1_0": tag(4, 3),
        "b2p1_0_0": tag(4, 2),
        "b2p2_0_0": tag(99, 1),
        "b2p3_0_0": tag(4, 0),
        "b2p4_0_0": tag(4, 1, is_padding=True),
        "b2p5_0_0": tag(4, 8),
        "b3p0_0_0": tag(1, 1),
        "other_0_0": tag(1, 1),
    }
    monkeypatch.setattr(probed_trajectories, "list_tags", lambda partition: tags)
    assert list_short_trajectories(2, None, 8, 50) == ["b2p1_0_0", "b2p0_1_0", "b2p5_0_0"]
    assert list_short_trajectories(2, None, 2, 50) == ["b2p1_0_0", "b2p0_1_0"]
    assert list_short_trajectories(2, ["b2p0_0_0"], 8, 50) == ["b2p0_0_0"]
    assert list_short_trajectories(1, None, 8, 50) == []


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (ActorUnavailableError("not now", b"0" * 16), False),  # of a node that has just died
        (ActorDiedError(), True),
        (GetTimeoutError(), True),
    ],
)
def test_the_run_goes_on_without_the_answers_of_who_cannot_give_them(
    composed, monkeypatch, capsys, error, is_lost
):
    """A measurement, which is made again; the patrol finds the dead."""
    config = composed()
    losses = iter([False, is_lost, True])
    pool = SimpleNamespace(has_lost=lambda *_: next(losses), check_health=lambda: None)

    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(log_prob_check.ray, "get", fail)
    check = LogProbCheck(config, load_pipeline_config(config), pool)
    assert check._wait("rollout replica 1", ["an answer"]) is None
    assert ("could not reach rollout replica 1" in capsys.readouterr().out) == (not is_lost)


def test_another_error_of_a_living_replica_is_raised(composed, monkeypatch):
    config = composed()
    pool = SimpleNamespace(has_lost=lambda *_: False, check_health=lambda: None)

    def fail(*_arguments, **_options):
        raise RayTaskError("generate", "Traceback", ValueError("too long"))

    monkeypatch.setattr(log_prob_check.ray, "get", fail)
    check = LogProbCheck(config, load_pipeline_config(config), pool)
    with pytest.raises(RayTaskError):
        check._wait("rollout replica 1", ["an answer"])
