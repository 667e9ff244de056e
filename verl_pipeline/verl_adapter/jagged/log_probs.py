"""Entropy and the distance between the trainer's and the rollout's probabilities, by verl's names.

Stand for ``agg_loss`` of ``verl.trainer.ppo.core_algos`` and ``calculate_debug_metrics`` of
``verl.utils.debug.metrics``. All tensors are float32, shape (C,): the tokens that count.
"""

import math

import torch

from verl_pipeline.verl_adapter.jagged.rows import map_blocks, sum_rows

# Modes of verl's agg_loss.
AGGREGATIONS = (
    "token-mean",
    "token-sum",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "seq-mean-token-mean",
)


def aggregate_tokens(
    values: torch.Tensor, counts: torch.Tensor, mode: str, *, scale: float | None, longest: int
) -> float:
    """verl's ``agg_loss`` of one process.

    Args:
        counts: tokens by row, int64, shape (n,).
        mode: one of :data:`AGGREGATIONS`.
        scale: ``actor.loss_scale_factor``; None is ``longest``, the width that verl pads to.
    """
    sums = torch.cat(
        list(map_blocks(lambda rows, tokens: sum_rows(values[tokens], counts[rows]), counts))
    )
    if mode in ("token-mean", "token-sum"):
        total = sums.sum()
        return float(total / counts.sum() if mode == "token-mean" else total)
    if mode == "seq-mean-token-mean":
        sums = sums / (counts + 1e-8)
    mean = sums[counts > 0].sum() / (counts > 0).sum()
    return float(mean / (scale or longest) if mode == "seq-mean-token-sum-norm" else mean)


def compare_probabilities(
    actor: torch.Tensor, rollout: torch.Tensor, counts: torch.Tensor
) -> dict[str, float]:
    """verl's ``training/rollout_*`` metrics of log-probs."""
    size = len(actor)
    if not size:
        names = ("diff_max", "diff_mean", "diff_std")
        unknown = {f"training/rollout_probs_{name}": math.nan for name in names}
        correlation = {"training/rollout_actor_probs_pearson_corr": math.nan}
        return {"training/rollout_probs_diff_valid": 0, **unknown, **correlation}
    # Probabilities relative to a typical one, since their spread may be far below their size.
    center = float(actor[: counts.max()].exp().mean())

    def sum_block(_rows: slice, tokens: slice) -> tuple[torch.Tensor, float]:
        p, q = actor[tokens].exp(), rollout[tokens].exp()
        difference = (p - q).abs()
        p -= center
        q -= center
        products = (
            difference.sum(),
            difference @ difference,
            p.sum(),
            q.sum(),
            p @ p,
            q @ q,
            p @ q,
        )
        largest = float(difference.max()) if len(difference) else 0.0
        return torch.stack(products).double(), largest

    blocks = list(map_blocks(sum_block, counts))
    largest = max(largest for _sums, largest in blocks)
    sums = torch.stack([sums for sums, _largest in blocks]).sum(0)
    mean, square, p_mean, q_mean, pp, qq, pq = (sums / size).tolist()
    covariance = pq - p_mean * q_mean
    spread = math.sqrt(max(pp - p_mean**2, 0.0)) * math.sqrt(max(qq - q_mean**2, 0.0))
    variance = max(square - mean**2, 0.0)
    return {
        "training/rollout_probs_diff_valid": 1,
        "training/rollout_probs_diff_max": largest,
        "training/rollout_probs_diff_mean": mean,
        "training/rollout_probs_diff_std": math.sqrt(variance * size / (size - 1))
        if size > 1
        else math.nan,
        "training/rollout_actor_probs_pearson_corr": max(-1.0, min(1.0, covariance / spread))
        if spread
        else math.nan,
    }
