"""Trajectories in TransferQueue, in our own terms: tags, fields, rows.

A partition ("train" or "val") holds prompts and trajectories by key. Each has a tag, a small dict
that the controller answers from memory; trajectories have fields (tensors and Python objects).

Tags of a prompt: ``is_prompt``, ``status`` (pending, running, finished, failure), ``sessions`` (how
many trajectories were requested) and, once one failed, ``errors`` (its cause in one line, by
session; the first one's traceback is a field). Tags of a trajectory: ``min_global_steps`` and
``max_global_steps`` (weight versions at its first and last token), ``prompt_len`` and
``response_len`` in tokens, its outcome (:mod:`.outcome_tags`); ``is_padding`` on rows that verl
pads with.

Invariant: after :func:`bound_waits` no call waits for ever on the controller; the storage units'
answers have a deadline of TransferQueue's own (``TQ_SIMPLE_STORAGE_SEND_RECV_TIMEOUT``).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
import zmq
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from transfer_queue.utils.zmq_utils import ZMQSocketPool

from verl_pipeline.filters import BatchView
from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.filters.truncation import LengthLimits
from verl_pipeline.trainer.batch import TrajectoryBatch
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.trainer.reward_value import mark_unusable
from verl_pipeline.trainer.trajectory_keys import parse_prompt, parse_session
from verl_pipeline.verl_adapter.jagged.rows import make_nested
from verl_pipeline.verl_adapter.trajectories.outcome_tags import find_untold

TRAIN, VALIDATION = "train", "val"
TERMINAL = ("finished", "failure")
_TRACEBACK = "traceback"


def bound_waits(seconds: float) -> None:
    """Let every later call of this process, verl's included, wait at most ``seconds`` for an answer
    of TransferQueue's controller. TransferQueue itself would wait for ever on a dead one.
    """
    client = tq.get_client()
    client.controller_rpc_pool = ZMQSocketPool(
        client.zmq_context,
        client.client_id,
        "request_handle_socket",
        timeout=max(math.ceil(seconds), 1),
    )


@contextmanager
def _name_controller() -> Iterator[None]:
    """Name who was awaited if the controller does not answer in time."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, zmq.error.Again):
            cause = cause.__cause__
        if cause is None:
            raise
        raise DeadlineExceeded(
            f"TransferQueue's controller: no answer within {PIPELINE_KEY}.deadlines.queue_s; its "
            "actor TransferQueueController has died or hangs: see Ray's dashboard or its log, then "
            "start the run again, which resumes from the last checkpoint"
        ) from error


def list_tags(partition: str) -> dict[str, dict]:
    """Tags of everything in a partition, by key. The cost grows with the number of keys."""
    with _name_controller():
        return (tq.kv_list(partition) or {}).get(partition, {})


def read_tags(keys: list[str], partition: str) -> dict[str, dict]:
    """Tags of ``keys``, at least one, by key; {} if one of them is not there. The cost grows with
    their number only, whatever else the partition holds.
    """
    with _name_controller():
        found = tq.get_client().kv_retrieve_meta(keys=keys, partition_id=partition)
    if found.size != len(keys):
        return {}
    return dict(zip(keys, found.custom_meta, strict=True))


def put_prompts(keys: list[str], batch: int, group_sizes: list[int]) -> None:
    """Announce the prompts of a training batch, before anything samples them."""
    tags = [
        {"is_prompt": True, "status": "pending", "global_steps": batch, "sessions": size}
        for size in group_sizes
    ]
    with _name_controller():
        tq.kv_batch_put(keys=keys, partition_id=TRAIN, tags=tags)


async def put_errors(
    prompt: str, partition: str, errors: dict[str, str], traceback: str | None
) -> None:
    """Set the tag ``errors`` of a prompt (one line by session) and store a traceback, if given."""
    fields = None
    if traceback is not None:
        fields = TensorDict({_TRACEBACK: NonTensorStack(traceback)}, batch_size=1)
    with _name_controller():
        await tq.async_kv_batch_put(
            keys=[prompt], partition_id=partition, fields=fields, tags=[{"errors": errors}]
        )


async def put_outcomes(keys: list[str], partition: str, outcomes: list[dict[str, Any]]) -> None:
    """Add tags of :func:`.outcome_tags.describe_outcome` to stored trajectories."""
    with _name_controller():
        await tq.async_kv_batch_put(keys=keys, partition_id=partition, tags=outcomes)


def read_traceback(prompt: str, partition: str, reason: str) -> str:
    """The traceback of a prompt's first failure, or ``reason`` if none was stored."""
    try:
        data = tq.kv_batch_get(keys=[prompt], partition_id=partition, select_fields=[_TRACEBACK])
    except ValueError:  # no such field
        return reason
    found = list(data[_TRACEBACK]) if _TRACEBACK in data else []
    return str(getattr(found[0], "data", found[0])) if found else reason


def remove_rows(keys: list[str], partition: str) -> None:
    """Remove prompts or trajectories with all they hold."""
    if keys:
        with _name_controller():
            tq.kv_clear(keys=keys, partition_id=partition)


def read_fields(keys: list[str], partition: str, names: Sequence[str]) -> TensorDict:
    """Fields of the trajectories ``keys``, in their order."""
    with _name_controller():
        return tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=list(names))


def put_fields(keys: list[str], partition: str, fields: Mapping[str, Any]) -> KVBatchMeta:
    """Write fields of the trajectories ``keys``; these as TransferQueue then describes them."""
    with _name_controller():
        return tq.kv_batch_put(
            keys=keys, partition_id=partition, fields=TensorDict(dict(fields), len(keys))
        )


def read_trajectories(batch: KVBatchMeta, limits: LengthLimits) -> TrajectoryBatch:
    """Read what is needed to check and filter ``batch``, which has at least one row.

    The tags tell it. Rows that another agent loop worker than ours stored lack them: of these
    ``rm_scores`` and ``extra_fields`` are fetched, and the responses that reached their limit,
    whose last token tells whether they were truncated. An agent loop that sets a ``max_tokens`` of
    its own reports it in ``extra_fields["max_tokens"]``. A reward that is not a finite number is
    NaN with the verdict ``infrastructure``, wherever it comes from.
    """
    outcomes = _read_outcomes(batch)
    lengths = np.array([tag["response_len"] for tag in batch.tags], dtype=np.int64)
    prompt_lengths = np.array([tag["prompt_len"] for tag in batch.tags], dtype=np.int64)
    own_limits = [outcome.get("max_tokens") or limits.response_length for outcome in outcomes]
    row_limits = np.minimum(limits.compute_limits(prompt_lengths), own_limits)
    last_tokens = _read_last_tokens(batch, lengths >= row_limits)
    rewards = mark_unusable(np.array([outcome["score"] for outcome in outcomes]))
    reports = [outcome["report"] for outcome in outcomes]
    verdicts = [
        INFRASTRUCTURE if np.isnan(reward) else report.get("verdict")
        for reward, report in zip(rewards, reports, strict=True)
    ]
    # The first cause may be shown, of what no grader judged and of what has no reward; a tag does
    # not hold it.
    ungraded = [row for row, verdict in enumerate(verdicts) if verdict == INFRASTRUCTURE]
    for row in {*ungraded[:1], *np.flatnonzero(np.isnan(rewards))[:1].tolist()}:
        (extra,) = _read_extra_fields([batch.keys[row]], batch.partition_id)
        reports[row] = extra.get("reward_extra_info") or {}
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
        generated_at=max(outcome.get("generated_at", 0.0) for outcome in outcomes),
        completed_at=max(outcome.get("completed_at", 0.0) for outcome in outcomes),
    )


def _read_outcomes(batch: KVBatchMeta) -> list[dict[str, Any]]:
    """``score``, ``report`` and, if known, ``max_tokens`` and ``generated_at`` of each row."""
    outcomes: list[dict[str, Any]] = list(batch.tags)
    rows = find_untold(batch.tags, "score", "report")
    if rows:
        keys = [batch.keys[row] for row in rows]
        scores = read_scores(keys, batch.partition_id).tolist()
        extra_fields = _read_extra_fields(keys, batch.partition_id)
        for row, score, extra in zip(rows, scores, extra_fields, strict=True):
            report = extra.get("reward_extra_info") or {}
            outcomes[row] = {**extra, "score": score, "report": report}
    return outcomes


def _read_extra_fields(keys: list[str], partition: str) -> list[dict[str, Any]]:
    data = read_fields(keys, partition, ["extra_fields"])
    return [getattr(fields, "data", fields) for fields in data["extra_fields"]]


def read_scores(keys: list[str], partition: str) -> torch.Tensor:
    """Sum of ``rm_scores`` (float32, one jagged row a trajectory); shape (n,)."""
    rows = read_fields(keys, partition, ["rm_scores"])["rm_scores"].unbind()
    return torch.stack([row.sum() for row in rows])


def _read_last_tokens(batch: KVBatchMeta, at_limit: np.ndarray) -> list[int]:
    """Last token of each response where ``at_limit`` (bool, shape (n,)), else it or -1."""
    tags = batch.tags
    last = [tag.get("last_token", -1) for tag in tags]
    rows = [row for row in find_untold(tags, "last_token") if at_limit[row]]
    if rows:
        keys = [batch.keys[row] for row in rows]
        data = read_fields(keys, batch.partition_id, ["responses"])
        for row, response in zip(rows, data["responses"].unbind(), strict=True):
            last[row] = int(response[-1])
    return last


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
    rows = [row for row, key in enumerate(batch.keys) if key in keys]
    if rows:
        lengths = torch.tensor([batch.tags[row]["response_len"] for row in rows])
        zeros = make_nested(torch.zeros(int(lengths.sum())), lengths)
        affected = [batch.keys[row] for row in rows]
        put_fields(affected, batch.partition_id, {"advantages": zeros})
