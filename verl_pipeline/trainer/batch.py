"""One complete batch between replay buffer and update: was it sampled as it should be, and which
rows are trained on.

Invariants:
* Every row was sampled by the one version the schedule gave its batch.
* A dropped row is gone from TransferQueue; a row with zero advantage stays.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from verl_pipeline.filters import BatchView
from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.filters.truncation import Limits
from verl_pipeline.trainer import prompts
from verl_pipeline.trainer.config import PREFIX
from verl_pipeline.trainer.replay_buffer import Losses
from verl_pipeline.trainer.schedule import sampling_version


class StalenessViolation(RuntimeError):
    """A batch was not sampled by the version that the schedule gives."""


class TooManyFailures(RuntimeError):
    """More of a batch was lost to infrastructure than the user allows."""


def check_versions(batch: KVBatchMeta, k: int, expected: int, staleness: int) -> None:
    """Compare each trajectory's first and last version with ``expected``, and that with the
    schedule's bound.

    Args:
        expected: version that the pool held when batch k was submitted; newer than the table's
            after a validation.

    Raises:
        StalenessViolation: naming the first trajectory that differs, or the bound.
    """
    if not sampling_version(k, staleness) <= expected < k:
        raise StalenessViolation(
            f"batch {k} was submitted with v_{expected}, outside staleness {staleness}"
        )
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        span = (tag["min_global_steps"], tag["max_global_steps"])
        if span != (expected, expected):
            raise StalenessViolation(
                f"batch {k}: {key} was sampled with v_{span[0]}..v_{span[1]}, not v_{expected}"
            )


@dataclass(frozen=True)
class Seen:
    """One batch as it came from the agent loops.

    Attributes:
        view: what the filters see.
        reported: what the reward function reported beside its score, by trajectory.
        generated_at: when the last generation ended, seconds since the epoch; 0 if unknown.
    """

    view: BatchView
    reported: list[dict]
    generated_at: float


def look_at(batch: KVBatchMeta, limits: Limits) -> Seen:
    """Read from TransferQueue what is needed to judge ``batch``, which has at least one row.

    An agent loop that sets a ``max_tokens`` of its own says so in ``extra_fields["max_tokens"]``.
    """
    data = tq.kv_batch_get(
        keys=batch.keys,
        partition_id=batch.partition_id,
        select_fields=["rm_scores", "extra_fields"],
    )
    extra = [getattr(fields, "data", fields) for fields in data["extra_fields"]]
    reported = [fields.get("reward_extra_info") or {} for fields in extra]
    lengths = np.array([tag["response_len"] for tag in batch.tags], dtype=np.int64)
    allowed = limits.of(np.array([tag["prompt_len"] for tag in batch.tags], dtype=np.int64))
    allowed = np.minimum(
        allowed, [fields.get("max_tokens") or limits.response_length for fields in extra]
    )
    seen = BatchView(
        uids=[prompts.prompt_of(key) for key in batch.keys],
        rewards=np.array([float(scores.sum()) for scores in data["rm_scores"].unbind()]),
        verdicts=[fields.get("verdict") for fields in reported],
        response_lengths=lengths,
        limits=allowed,
        truncated=limits.truncated(lengths, allowed, _last_tokens(batch, lengths >= allowed)),
    )
    return Seen(seen, reported, max(fields.get("generated_at", 0.0) for fields in extra))


def _last_tokens(batch: KVBatchMeta, wanted: np.ndarray) -> list[int]:
    """Last tokens of the ``wanted`` responses (bool, one a row), -1 of the others: only long ones
    are fetched.
    """
    last = [-1] * len(batch.keys)
    rows = np.flatnonzero(wanted)
    if len(rows):
        data = tq.kv_batch_get(
            keys=[batch.keys[row] for row in rows],
            partition_id=batch.partition_id,
            select_fields=["responses"],
        )
        for row, response in zip(rows, data["responses"].unbind(), strict=True):
            last[row] = int(response[-1])
    return last


def reward_metrics(reported: list[dict]) -> dict[str, float]:
    """What graders that give their name (``grader``) reported of a batch.

    Returns:
        ``reward/<grader>/verdict/<verdict>`` and ``.../tier/<isolation tier>`` (shares of its
        trajectories), and for each of its numbers of seconds (``..._s``), ``busy`` (programs at a
        time) and ``calibration`` (how much slower than the reference a processor was) ``.../p50``
        and ``.../p95``.
    """
    metrics: dict[str, float] = {}
    for grader in sorted({fields["grader"] for fields in reported if "grader" in fields}):
        rows = [fields for fields in reported if fields.get("grader") == grader]
        prefix = f"reward/{grader}"
        for kind in ("verdict", "tier"):
            for value, count in Counter(fields[kind] for fields in rows if kind in fields).items():
                metrics[f"{prefix}/{kind}/{value}"] = count / len(rows)
        for name in (
            key for key in rows[0] if key.endswith("_s") or key in ("busy", "calibration")
        ):
            p50, p95 = np.percentile([fields[name] for fields in rows], [50, 95])
            metrics |= {f"{prefix}/{name}/p50": float(p50), f"{prefix}/{name}/p95": float(p95)}
    return metrics


def check_failures(k: int, losses: Losses, seen: BatchView, allowed: float) -> dict[str, float]:
    """Count what infrastructure cost: trajectories that are missing and those a grader could not
    judge.

    Returns:
        ``pipeline/infrastructure/*`` metrics.

    Raises:
        TooManyFailures: their share is above ``allowed``; the first traceback is shown.
    """
    graded = sum(verdict == INFRASTRUCTURE for verdict in seen.verdicts)
    share = (losses.missing + graded) / losses.expected if losses.expected else 0.0
    if share > allowed:
        raise TooManyFailures(
            f"batch {k}: {losses.missing} trajectories failed and {graded} could not be graded, of "
            f"{losses.expected}: {share:.0%} is above {PREFIX}.max_infrastructure_share={allowed}. "
            f"First failure:\n{losses.first_error or '(a verdict of the grader; see its log)'}"
        )
    return {
        "pipeline/infrastructure/missing": float(losses.missing),
        "pipeline/infrastructure/verdicts": float(graded),
        "pipeline/infrastructure/share": share,
    }


def keep(batch: KVBatchMeta, kept: np.ndarray) -> KVBatchMeta:
    """Reduce ``batch`` to the rows ``kept`` (int64 positions, in order); the others leave
    TransferQueue.
    """
    if len(kept) == len(batch.keys):
        return batch
    dropped = np.setdiff1d(np.arange(len(batch.keys)), kept)
    tq.kv_clear(keys=[batch.keys[row] for row in dropped], partition_id=batch.partition_id)
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[batch.keys[row] for row in kept],
        tags=[batch.tags[row] for row in kept],
        extra_info=batch.extra_info,
    )


def zero_advantages(batch: KVBatchMeta, rows: set[str]) -> None:
    """Set the advantages of ``rows`` (keys) to 0 in TransferQueue."""
    keys = [key for key in batch.keys if key in rows]
    if keys:
        data = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["advantages"]
        )
        zeros = TensorDict({"advantages": data["advantages"] * 0}, batch_size=len(keys))
        tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=zeros)
