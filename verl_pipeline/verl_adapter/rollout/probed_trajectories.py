"""Trajectories whose log-probs the replicas are asked for, to be compared with the trainer's.

Invariant: few and short ones, since each replica reads them while it samples.
"""

from dataclasses import dataclass

import numpy as np

from verl_pipeline.trainer.trajectory_keys import parse_batch, parse_prompt
from verl_pipeline.verl_adapter.trajectories.trajectory_store import TRAIN, list_tags, read_fields


@dataclass(frozen=True)
class TrajectoryTokens:
    """The beginning of a trajectory.

    Attributes:
        key: its name.
        tokens: ids of the prompt and of the beginning of the response.
        prompt_length: how many of them are the prompt's.
    """

    key: str
    tokens: list[int]
    prompt_length: int


def list_short_trajectories(
    batch: int, keys: list[str] | None, count: int, max_prompt: int
) -> list[str]:
    """Up to ``count`` trajectories of training batch ``batch``, one a prompt, short ones first.

    Args:
        keys: choose among these only; None: among all.
        max_prompt: prompts with more tokens are left out.
    """
    allowed = None if keys is None else set(keys)
    lengths: dict[str, tuple[int, str]] = {}
    for key, tag in list_tags(TRAIN).items():
        is_row = tag.get("response_len") and not tag.get("is_padding") and "_" in key
        if not is_row or parse_batch(key) != batch or (allowed is not None and key not in allowed):
            continue
        if tag["prompt_len"] <= max_prompt:
            length = tag["prompt_len"] + tag["response_len"]
            prompt = parse_prompt(key)
            lengths[prompt] = min(lengths.get(prompt, (length, key)), (length, key))
    return [key for _length, key in sorted(lengths.values())[:count]]


def read_tokens(keys: list[str], max_tokens: int) -> list[TrajectoryTokens]:
    """The first ``max_tokens`` tokens of trajectories, without those that have images or so."""
    data = read_fields(keys, TRAIN, ["prompts", "responses", "multi_modal_inputs"])
    found = []
    for key, prompt, response, inputs in zip(
        keys,
        data["prompts"].unbind(),
        data["responses"].unbind(),
        data["multi_modal_inputs"],
        strict=True,
    ):
        if not getattr(inputs, "data", inputs):
            tokens = [*prompt.tolist(), *response.tolist()][:max_tokens]
            found.append(TrajectoryTokens(key, tokens, len(prompt)))
    return found


def read_old_log_probs(keys: list[str]) -> list[np.ndarray]:
    """The trainer's log-probs of responses (float, shape (response length,) each)."""
    rows = read_fields(keys, TRAIN, ["old_log_probs"])["old_log_probs"].unbind()
    return [row.float().numpy() for row in rows]
