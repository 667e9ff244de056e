"""A training's own reward outside a training: verl's scorer by ``data_source``, or a function.

verl's reward manager ``naive`` makes each call, so that a function gets what it gets in training:
the same arguments, in a thread unless it is ``async``.

Invariants:
* verl's scorers that run a response, or evaluate parts of it as Python, are never called: nothing
  here is a sandbox. Only sources of :func:`.scored_response.compares_text` reach verl's scorer.
* A reward is one finite number; whatever else happens is an :class:`UngradedResponse`.
"""

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.protocol import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.reward_score import default_compute_score

from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.trainer.reward_value import UnusableReward, read_reward
from verl_pipeline.verl_adapter.rewards.scored_response import (
    ScoredResponse,
    UngradedResponse,
    compares_text,
)

# The answer that verl's scorer for DAPO's problems reports if it finds none.
_NO_PREDICTION = "[INVALID]"
# What verl's agent loop counts for a question and its response.
_TURNS = 2


class TrainingReward:
    """A loaded reward; not thread-safe.

    Args:
        path: ``reward.custom_reward_function.path``; None: verl's default scorer.
        name, kwargs: ``name`` and ``reward_kwargs`` beside it.

    Raises:
        FileNotFoundError, ImportError, RuntimeError, AttributeError: there is no such function.
    """

    def __init__(self, path: str | None, name: str, kwargs: Mapping[str, Any]):
        settings = {"path": path, "name": name, "reward_kwargs": dict(kwargs)}
        config = OmegaConf.create({"reward": {"custom_reward_function": settings}})
        function = get_custom_reward_fn(config)
        if function is None:
            function = _score_text
        elif function.args[0] is default_compute_score:
            raise ValueError(
                "this is verl's default scorer, which could run responses; name 'verl'"
            )
        self._response = _ResponseAsTokens()
        self._manager = NaiveRewardManager(config, self._response, function)

    def score_response(
        self, data_source: Any, response: str, ground_truth: Any, extra_info: Mapping[str, Any]
    ) -> ScoredResponse:
        """Return the reward of a response.

        Raises:
            UngradedResponse: the function raised, returned no finite number, or says that it could
                not grade.
        """
        self._response.text = response
        token = torch.ones((1, 1), dtype=torch.long)
        data = DataProto.from_dict(
            tensors={"responses": token, "attention_mask": token},
            non_tensors={
                "data_source": _make_column(data_source),
                "reward_model": _make_column({"ground_truth": ground_truth}),
                "extra_info": _make_column(dict(extra_info)),
                "__num_turns__": np.array([_TURNS]),
            },
        )
        try:
            answer = self._manager.loop.run_until_complete(self._manager.run_single(data))
            return _read_answer(answer)
        except (UngradedResponse, UnusableReward) as error:
            raise UngradedResponse(str(error)) from error
        # A user's function may raise anything, SystemExit included.
        except BaseException as error:
            raise UngradedResponse(describe_error(error)) from error


class _ResponseAsTokens:
    """Stands for the tokenizer, from which verl's reward manager gets the response's text."""

    text = ""

    def decode(self, _tokens: Any, skip_special_tokens: bool = True) -> str:
        return self.text


def describe_error(error: BaseException) -> str:
    """Return an exception's first cause in one line, with the place that raised it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def _score_text(data_source: str, **arguments: Any) -> Any:
    """Call verl's default scorer, if it only compares texts."""
    if not compares_text(data_source):
        raise NotImplementedError(f"verl's scorer is not called for {data_source!r}")
    return default_compute_score(data_source, **arguments)


def _read_answer(answer: Mapping[str, Any]) -> ScoredResponse:
    report = answer["reward_extra_info"]
    verdict, reason = str(report.get("verdict", "")), str(report.get("reason", ""))
    if verdict == INFRASTRUCTURE:
        raise UngradedResponse(reason or "the function reports the verdict infrastructure")
    reward = read_reward(answer["reward_score"])
    try:
        correctness = read_reward(report.get("acc", reward))
    except UnusableReward:  # a function may report anything under this name
        correctness = reward
    prediction = report.get("pred")
    if not isinstance(prediction, str) or prediction == _NO_PREDICTION:
        prediction = None
    return ScoredResponse(reward, correctness, prediction, verdict, reason)


def _make_column(value: Any) -> np.ndarray:
    """Return an array of one object; numpy would make several of a list."""
    column = np.empty(1, dtype=object)
    column[0] = value
    return column
