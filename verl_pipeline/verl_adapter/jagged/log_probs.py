"""Entropy and the distance between the trainer's and the rollout's probabilities, by verl's names.

Stand for ``agg_loss`` of ``verl.trainer.ppo.core_algos`` and ``calculate_debug_metrics`` of
``verl.utils.debug.metrics``: what a rank measures of each row, and what follows of all rows.
Columns are float32, shape (n,), by name.
"""

import math
from collections.abc import Mapping

import torch

from verl_pipeline.verl_adapter.jagged.rows import join_columns, map_blocks, max_rows, sum_rows

# Modes of verl's agg_loss.
AGGREGATIONS = (
    "token-mean",
    "token-sum",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "seq-mean-token-mean",
)


def aggregate_rows(
    sums: torch.Tensor, counts: torch.Tensor, mode: str, *, scale: float | None, longest: int
) -> float:
    """verl's ``agg_loss`` of one process.

    Args:
        sums: over the tokens that count, by row, shape (n,).
        counts: those tokens, int64, shape (n,).
        mode: one of :data:`AGGREGATIONS`.
        scale: ``actor.loss_scale_factor``; None is ``longest``, the width that verl pads to.
    """
    if mode in ("token-mean", "token-sum"):
        total = sums.sum()
        return float(total / counts.sum() if mode == "token-mean" else total)
    if mode == "seq-mean-token-mean":
        sums = sums / (counts + 1e-8)
    mean = sums[counts > 0].sum() / (counts > 0).sum()
    return float(mean / (scale or longest) if mode == "seq-mean-token-sum-norm" else mean)


def measure_probabilities(
    actor: torch.Tensor, rollout: torch.Tensor, counts: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Columns that :func:`describe_probabilities` needs.

    Args:
        actor, rollout: log-probs of the tokens that count, float32, shape (C,).
        counts: those tokens by row, int64, shape (n,).
    """

    def measure_block(rows: slice, tokens: slice) -> dict[str, torch.Tensor]:
        p, q, counted = actor[tokens].exp(), rollout[tokens].exp(), counts[rows]
        difference = (p - q).abs()
        # Probabilities relative to a typical one of theirs, since their spread may be far below
        # their size, and that of the others.
        p_center, q_center = (float(x[: counted.max()].mean()) if len(x) else 0.0 for x in (p, q))
        p -= p_center
        q -= q_center
        return {
            "gap": sum_rows(difference, counted),
            "gap_squared": sum_rows(difference * difference, counted),
            "gap_largest": max_rows(difference, counted),
            "p_center": torch.full((len(counted),), p_center),
            "q_center": torch.full((len(counted),), q_center),
            "p": sum_rows(p, counted),
            "q": sum_rows(q, counted),
            "pp": sum_rows(p * p, counted),
            "qq": sum_rows(q * q, counted),
            "pq": sum_rows(p * q, counted),
        }

    return join_columns(map_blocks(measure_block, counts))


def describe_probabilities(
    columns: Mapping[str, torch.Tensor], counts: torch.Tensor
) -> dict[str, float]:
    """verl's ``training/rollout_*`` metrics of log-probs.

    Args:
        columns: of :func:`measure_probabilities`.
        counts: tokens that count by row, int64, shape (n,).
    """
    size = int(counts.sum())
    if not size:
        names = ("diff_max", "diff_mean", "diff_std")
        unknown = {f"training/rollout_probs_{name}": math.nan for name in names}
        correlation = {"training/rollout_actor_probs_pearson_corr": math.nan}
        return {"training/rollout_probs_diff_valid": 0, **unknown, **correlation}
    gap, gap_squared, p, q, pp, qq, pq = (
        columns[name].double() for name in ("gap", "gap_squared", "p", "q", "pp", "qq", "pq")
    )
    # All relative to the means of the centers.
    p_shift, q_shift = (
        center - (center * counts).sum() / size
        for center in (columns["p_center"].double(), columns["q_center"].double())
    )
    pp = pp + 2 * p_shift * p + counts * p_shift**2
    qq = qq + 2 * q_shift * q + counts * q_shift**2
    pq = pq + p_shift * q + q_shift * p + counts * p_shift * q_shift
    p, q = p + counts * p_shift, q + counts * q_shift
    mean, square = float(gap.sum()) / size, float(gap_squared.sum()) / size
    p_mean, q_mean, p_square, q_square, product = (
        float(column.sum()) / size for column in (p, q, pp, qq, pq)
    )
    covariance = product - p_mean * q_mean
    spread = math.sqrt(max(p_square - p_mean**2, 0.0)) * math.sqrt(max(q_square - q_mean**2, 0.0))
    variance = max(square - mean**2, 0.0)
    return {
        "training/rollout_probs_diff_valid": 1,
        "training/rollout_probs_diff_max": float(columns["gap_largest"].max()),
        "training/rollout_probs_diff_mean": mean,
        "training/rollout_probs_diff_std": math.sqrt(variance * size / (size - 1))
        if size > 1
        else math.nan,
        "training/rollout_actor_probs_pearson_corr": max(-1.0, min(1.0, covariance / spread))
        if spread
        else math.nan,
    }
