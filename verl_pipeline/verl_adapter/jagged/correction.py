"""verl's rollout correction: importance weights, rejection and off-policy metrics, unpadded.

Stands for ``compute_rollout_correction_and_rejection_mask`` of
``verl.trainer.ppo.rollout_corr_helper``, with all of its modes; the equations and the names are
explained there. A rank corrects its rows, each by itself (:func:`correct_tokens`); the driver
describes all rows (:func:`describe_correction`). Tensors are float32; (C,) are the tokens that
count, (n,) rows.

The one number that all rows share is ``rollout_is_batch_norm_factor``: the driver finds it, and a
rank divides its weights by it before the update.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from verl.trainer.ppo.rollout_corr_helper import SAFETY_BOUND, _parse_rollout_is_threshold

from verl_pipeline.verl_adapter.jagged.rejection import Rejection
from verl_pipeline.verl_adapter.jagged.rows import (
    expand_rows,
    join_columns,
    map_blocks,
    max_rows,
    sum_rows,
)

PREFIX = "rollout_corr/"
NORM_FACTOR = f"{PREFIX}rollout_is_batch_norm_factor"


@dataclass(frozen=True)
class Correction:
    """What verl adds to rows, and what their metrics follow from.

    Attributes:
        weights: importance weights, not yet normalized, shape (C,); None without ``rollout_is``.
        kept: which tokens rejection leaves, bool, shape (C,); None if it leaves all or is off.
        columns: of :func:`describe_correction`, shape (n,), by name.
    """

    weights: torch.Tensor | None
    kept: torch.Tensor | None
    columns: dict[str, torch.Tensor]


def correct_tokens(
    old: torch.Tensor, rollout: torch.Tensor, counts: torch.Tensor, config: Mapping[str, Any]
) -> Correction:
    """Correct for the difference between the policies that trained and sampled.

    Args:
        old: log-probs of the training policy, shape (C,).
        rollout: those of the rollout, shape (C,).
        counts: tokens by row, int64, shape (n,).
        config: ``algorithm.rollout_correction``.

    Raises:
        ValueError: a setting that verl refuses.
    """
    weighting, rejection = _Weighting.read(config), Rejection.read(config)
    weights = torch.empty_like(old) if weighting and weighting.per_token else None
    kept = torch.ones_like(old, dtype=torch.bool) if rejection else None

    def correct_block(rows: slice, tokens: slice) -> dict[str, torch.Tensor]:
        counted = counts[rows]
        log_ratio = old[tokens] - rollout[tokens]
        safe = log_ratio.clamp(-SAFETY_BOUND, SAFETY_BOUND)
        ratio = safe.exp()
        exact = ratio if torch.equal(safe, log_ratio) else log_ratio.exp()
        columns = {
            "old": sum_rows(old[tokens], counted),
            "rollout": sum_rows(rollout[tokens], counted),
            "log_ratio": sum_rows(log_ratio, counted),
            "k3": sum_rows(exact - log_ratio - 1, counted),
            "ratio": sum_rows(ratio, counted),
            "ratio_squared": sum_rows(ratio * ratio, counted),
        }
        if weighting and weights is not None:
            weights[tokens] = weighting.apply(ratio)
            columns |= weighting.measure_block(ratio, weights[tokens], counted)
        if rejection and kept is not None:
            columns |= rejection.judge_block(safe, ratio, counted, kept[tokens])
        return columns

    columns = join_columns(map_blocks(correct_block, counts))
    if weighting and not weighting.per_token:
        weights = expand_rows(weighting.weigh_rows(columns["log_ratio"]), counts)
    if rejection and kept is not None:
        columns |= rejection.judge_rows(columns, counts, kept)
    return Correction(weights, None if kept is None or bool(kept.all()) else kept, columns)


def describe_correction(
    columns: Mapping[str, torch.Tensor], counts: torch.Tensor, config: Mapping[str, Any]
) -> dict[str, float]:
    """verl's ``rollout_corr/*`` metrics.

    Args:
        columns: of :func:`correct_tokens`.
        counts: tokens by row, int64, shape (n,).
        config: ``algorithm.rollout_correction``.

    Raises:
        ValueError: no token counts, or a setting that verl refuses.
    """
    if not counts.any():
        raise ValueError("response_mask must contain at least one valid token (1).")
    weighting, rejection = _Weighting.read(config), Rejection.read(config)
    metrics: dict[str, float] = {}
    if weighting:
        describe_weights = _describe_token_weights if weighting.per_token else _describe_row_weights
        metrics |= describe_weights(columns, counts, weighting)
    if rejection:
        metrics |= rejection.describe(columns, counts)
    metrics |= _describe_distance(columns, counts)
    return {f"{PREFIX}{name}": value for name, value in metrics.items()}


def _add(column: torch.Tensor) -> float:
    return float(column.sum(dtype=torch.float64))


def _describe_distance(
    columns: Mapping[str, torch.Tensor], counts: torch.Tensor
) -> dict[str, float]:
    """verl's ``compute_offpolicy_metrics``."""
    size = int(counts.sum())
    sampled = counts + 1e-8
    training, rollout = columns["old"] / sampled, columns["rollout"] / sampled
    gap = rollout - training
    product = columns["log_ratio"].clamp(-SAFETY_BOUND, SAFETY_BOUND)
    return {
        "training_ppl": float((-training).exp().mean()),
        "training_log_ppl": float((-training).mean()),
        "kl": -_add(columns["log_ratio"]) / size,
        "k3_kl": _add(columns["k3"]) / size,
        "rollout_ppl": float((-rollout).exp().mean()),
        "rollout_log_ppl": float((-rollout).mean()),
        "log_ppl_diff": float(gap.mean()),
        "log_ppl_abs_diff": float(gap.abs().mean()),
        "log_ppl_diff_max": float(gap.max()),
        "log_ppl_diff_min": float(gap.min()),
        "ppl_ratio": float(gap.exp().mean()),
        "chi2_token": _add(columns["ratio_squared"]) / size - 1.0,
        "chi2_seq": float((2.0 * product).exp().mean() - 1.0),
    }


@dataclass(frozen=True)
class _Weighting:
    """``rollout_is`` and its settings; ``lower`` is None for truncation, else IcePop's bound."""

    per_token: bool
    upper: float
    lower: float | None
    normalize: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "_Weighting | None":
        level = config.get("rollout_is", None)
        threshold = config.get("rollout_is_threshold", 2.0)
        if level is None or threshold is None:
            return None
        if level not in ("token", "sequence"):
            raise ValueError(f"Invalid rollout_is: {level}. Must be one of token, sequence.")
        upper, lower = _parse_rollout_is_threshold(threshold)
        normalize = bool(config.get("rollout_is_batch_normalize", False))
        return cls(level == "token", upper, lower, normalize)

    @property
    def reported_lower(self) -> float:
        """The bound below which verl's metrics count a ratio as low."""
        return 1.0 / self.upper if self.lower is None else self.lower

    def apply(self, ratio: torch.Tensor) -> torch.Tensor:
        if self.lower is None:
            return ratio.clamp(max=self.upper)
        inside = (ratio >= self.lower) & (ratio <= self.upper)
        return torch.where(inside, ratio, torch.zeros_like(ratio))

    def weigh_rows(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """Sequence-level weights of rows with these sums, shape (n,)."""
        return self.apply(log_ratio.clamp(-SAFETY_BOUND, SAFETY_BOUND).exp())

    def measure_block(
        self, ratio: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Columns of token-level weights (shape (C,), like ``ratio``)."""
        return {
            "weight": sum_rows(weights, counts),
            "weight_squared": sum_rows(weights * weights, counts),
            "weight_smallest": -max_rows(-weights, counts, empty=-math.inf),
            "weight_largest": max_rows(weights, counts, empty=-math.inf),
            "high": sum_rows(ratio > self.upper, counts).float(),
            "low": sum_rows(ratio < self.reported_lower, counts).float(),
        }


def _describe_token_weights(
    columns: Mapping[str, torch.Tensor], counts: torch.Tensor, weighting: _Weighting
) -> dict[str, float]:
    """verl's ``compute_is_metrics`` of token-level weights."""
    size = int(counts.sum())
    mean, square, high, low = (
        _add(columns[name]) / size for name in ("weight", "weight_squared", "high", "low")
    )
    row_weights, row_ratios = (columns[name] / (counts + 1e-8) for name in ("weight", "ratio"))
    metrics = {
        "rollout_is_mean": mean,
        "rollout_is_ratio_fraction_high": high,
        "rollout_is_ratio_fraction_low": low,
        "rollout_is_max": float(columns["weight_largest"].max()),
        "rollout_is_min": float(columns["weight_smallest"].min()),
        **_describe_moments(mean, square, size),
        **_describe_rows(row_weights, row_ratios, weighting),
    }
    if weighting.lower is not None:
        metrics["rollout_is_oob_ratio"] = high + low
    if weighting.normalize:
        metrics["rollout_is_batch_norm_factor"] = mean if mean > 1e-8 else 1.0
    return metrics


def _describe_row_weights(
    columns: Mapping[str, torch.Tensor], counts: torch.Tensor, weighting: _Weighting
) -> dict[str, float]:
    """verl's ``compute_is_metrics`` of sequence-level weights; rows without tokens take part in its
    means.
    """
    log_ratio, size = columns["log_ratio"], int(counts.sum())
    weights = weighting.weigh_rows(log_ratio)
    ratio = log_ratio.clamp(-SAFETY_BOUND, SAFETY_BOUND).exp()
    high, low = torch.log(torch.tensor([weighting.upper, weighting.reported_lower]))
    share = counts.double() / size
    mean = float((weights * share).sum())
    present = counts / (counts + 1e-8)
    metrics = {
        "rollout_is_max": float(log_ratio.max().clamp(max=SAFETY_BOUND).exp()),
        "rollout_is_min": float(log_ratio.min().exp()),
        "rollout_is_mean": mean,
        "rollout_is_ratio_fraction_high": float((log_ratio > high).float().mean()),
        "rollout_is_ratio_fraction_low": float((log_ratio < low).float().mean()),
        **_describe_moments(mean, float((weights.square() * share).sum()), size),
        **_describe_rows(weights * present, ratio * present, weighting),
    }
    if weighting.lower is not None:
        outside = (ratio < weighting.lower) | (ratio > weighting.upper)
        metrics["rollout_is_oob_ratio"] = float((outside * share).sum())
    if weighting.normalize:
        factor = float(weights[counts > 0].mean())
        metrics["rollout_is_batch_norm_factor"] = factor if factor > 1e-8 else 1.0
    return metrics


def _describe_moments(mean: float, square: float, size: int) -> dict[str, float]:
    """Deviation and effective sample size of weights with these moments over ``size`` tokens.

    The size is 0 if all weights are 0 (verl divides by zero).
    """
    spread = max(square - mean**2, 0.0) ** 0.5 if size > 1 else 0.0
    normalized = square / (mean + 1e-8) ** 2
    return {
        "rollout_is_std": spread,
        "rollout_is_eff_sample_size": 1.0 / normalized if normalized else 0.0,
    }


def _describe_rows(
    weights: torch.Tensor, ratio: torch.Tensor, weighting: _Weighting
) -> dict[str, float]:
    """What verl reports of each row's mean weight and mean ratio (shape (n,))."""
    return {
        "rollout_is_seq_mean": float(weights.mean()),
        "rollout_is_seq_std": float(weights.std()) if len(weights) > 1 else 0.0,
        "rollout_is_seq_max": float(weights.max()),
        "rollout_is_seq_min": float(weights.min()),
        "rollout_is_seq_max_deviation": float((weights - 1.0).abs().max()),
        "rollout_is_seq_fraction_high": float((ratio > weighting.upper).float().mean()),
        "rollout_is_seq_fraction_low": float((ratio < weighting.reported_lower).float().mean()),
    }
