"""Trajectories in TransferQueue, in our own terms: tags, fields, rows.

A partition ("train" or "val") holds prompts and trajectories by key. Each has a tag, a small dict
that the controller answers from memory; trajectories have fields (tensors and Python objects).

Tags of a prompt: ``is_prompt``, ``status`` (pending, running, finished, failure), ``sessions`` (how
many trajectories were requested) and, once one failed, ``errors`` (traceback by session). Tags of a
trajectory: ``min_global_steps`` and ``max_global_steps`` (weight versions at its first and last
token), ``prompt_len`` and ``response_len`` in tokens; ``is_padding`` on rows that verl pads with.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from verl_pipeline.filters import BatchView
from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.filters.truncation import LengthLimits
from verl_pipeline.trainer.batch import TrajectoryBatch
from verl_pipeline.trainer.reward_value import mark_unusable
from verl_pipeline.trainer.trajectory_keys import parse_batch, parse_prompt, parse_session

TRAIN, VALIDATION = "train", "val"
TERMINAL = ("finished", "failure")


def list_tags(partition: str) -> dict[str, dict]:
    """Tags of everything in a partition, by key. The cost grows with the number of keys."""
    return (tq.kv_list(partition) or {}).get(partition, {})


def put_prompts(keys: list[str], batch: int, group_sizes: list[int]) -> None:
    """Announce the prompts of a training batch, before anything samples them."""
    tags = [
        {"is_prompt": True, "status": "pending", "global_steps": batch, "sessions": size}
        for size in group_sizes
    ]
    tq.kv_batch_put(keys=keys, partition_id=TRAIN, tags=tags)


async def put_errors(prompt: str, partition: str, errors: dict[str, str]) -> None:
    """Set the tag ``errors`` of a prompt: traceback by session."""
    await tq.async_kv_put(key=prompt, partition_id=partition, tag={"errors": errors})


def remove_rows(keys: list[str], partition: str) -> None:
    """Remove prompts or trajectories with all they hold."""
    if keys:
        tq.kv_clear(keys=keys, partition_id=partition)


def read_trajectories(batch: KVBatchMeta, limits: LengthLimits) -> TrajectoryBatch:
    """Read what is needed to check and filter ``batch``, which has at least one row.

    Prompts and responses are not fetched, but for the responses that reached their limit: only
    their last tokens tell whether they were truncated. An agent loop that sets a ``max_tokens`` of
    its own reports it in ``extra_fields["max_tokens"]``. A reward that is not a finite number is
    NaN with the verdict ``infrastructure``, wherever it comes from.
    """
    # rm_scores: float32, one jagged row of response_len scores for each trajectory.
    data = tq.kv_batch_get(
        keys=batch.keys,
        partition_id=batch.partition_id,
        select_fields=["rm_scores", "extra_fields"],
    )
    extra_fields = [getattr(fields, "data", fields) for fields in data["extra_fields"]]
    reports = [fields.get("reward_extra_info") or {} for fields in extra_fields]
    lengths = np.array([tag["response_len"] for tag in batch.tags], dtype=np.int64)
    prompt_lengths = np.array([tag["prompt_len"] for tag in batch.tags], dtype=np.int64)
    own_limits = [fields.get("max_tokens") or limits.response_length for fields in extra_fields]
    row_limits = np.minimum(limits.compute_limits(prompt_lengths), own_limits)
    last_tokens = _read_last_tokens(batch, lengths >= row_limits)
    rewards = mark_unusable(np.array([float(row.sum()) for row in data["rm_scores"].unbind()]))
    verdicts = [
        INFRASTRUCTURE if np.isnan(reward) else report.get("verdict")
        for reward, report in zip(rewards, reports, strict=True)
    ]
    return TrajectoryBatch(
        keys=batch.keys,
        version_spans=np.array(
            [(tag["min_global_steps"], tag["max_global_steps"]) for tag in batch.tags],
            dtype=np.int64,
        ),
        view=BatchView(
            uids=[parse_prompt(key) for key in batch.keys],
            sessions=np.array([parse_session(key) for key in batch.keys], dtype=np.int64),
            rewards=rewards,
            verdicts=verdicts,
            response_lengths=lengths,
            limits=row_limits,
            truncated=limits.find_truncated(lengths, row_limits, last_tokens),
        ),
        reward_reports=reports,
        generated_at=max(fields.get("generated_at", 0.0) for fields in extra_fields),
    )


def _read_last_tokens(batch: KVBatchMeta, at_limit: np.ndarray) -> list[int]:
    """Last token of each response where ``at_limit`` (bool, shape (n,)), else -1."""
    last = [-1] * len(batch.keys)
    rows = np.flatnonzero(at_limit)
    if len(rows):
        data = tq.kv_batch_get(
            keys=[batch.keys[row] for row in rows],
            partition_id=batch.partition_id,
            select_fields=["responses"],
        )
        for row, response in zip(rows, data["responses"].unbind(), strict=True):
            last[row] = int(response[-1])
    return last


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
    data = tq.kv_batch_get(
        keys=keys,
        partition_id=TRAIN,
        select_fields=["prompts", "responses", "multi_modal_inputs"],
    )
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
    data = tq.kv_batch_get(keys=keys, partition_id=TRAIN, select_fields=["old_log_probs"])
    return [row.float().numpy() for row in data["old_log_probs"].unbind()]


def drop_rows(batch: KVBatchMeta, kept: np.ndarray) -> KVBatchMeta:
    """Reduce ``batch`` to the rows ``kept`` (int64 positions, in order); remove the others."""
    if len(kept) == len(batch.keys):
        return batch
    dropped = np.setdiff1d(np.arange(len(batch.keys)), kept)
    remove_rows([batch.keys[row] for row in dropped], batch.partition_id)
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[batch.keys[row] for row in kept],
        tags=[batch.tags[row] for row in kept],
        extra_info=batch.extra_info,
    )


def count_padding_tokens(batch: KVBatchMeta) -> int:
    """Tokens of the rows that verl added to fill a mini-batch."""
    return sum(int(tag["seq_len"]) for tag in batch.tags if tag.get("is_padding", False))


def zero_advantages(batch: KVBatchMeta, keys: frozenset[str]) -> None:
    """Set the advantages of the trajectories ``keys`` to 0 (float32, as long as each response)."""
    affected = [key for key in batch.keys if key in keys]
    if affected:
        data = tq.kv_batch_get(
            keys=affected, partition_id=batch.partition_id, select_fields=["advantages"]
        )
        zeros: dict[str, Any] = {"advantages": data["advantages"] * 0}
        tq.kv_batch_put(
            keys=affected,
            partition_id=batch.partition_id,
            fields=TensorDict(zeros, batch_size=len(affected)),
        )
