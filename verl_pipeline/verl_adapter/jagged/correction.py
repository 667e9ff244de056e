"""verl's rollout correction: importance weights, rejection and off-policy metrics, unpadded.

Stands for ``compute_rollout_correction_and_rejection_mask`` of
``verl.trainer.ppo.rollout_corr_helper``, with all of its modes; the equations and the names are
explained there. Tensors are float32; (C,) are the tokens that count, (n,) rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from verl.trainer.ppo.rollout_corr_helper import SAFETY_BOUND, _parse_rollout_is_threshold

from verl_pipeline.verl_adapter.jagged.rejection import BlockRejection, Rejection
from verl_pipeline.verl_adapter.jagged.rows import expand_rows, map_blocks, sum_rows

PREFIX = "rollout_corr/"


@dataclass(frozen=True)
class Correction:
    """What verl adds to a batch, and its metrics.

    Attributes:
        weights: importance weights, shape (C,); None without ``rollout_is``.
        kept: which tokens rejection leaves, bool, shape (C,); None if it leaves all or is off.
        metrics: ``rollout_corr/*``.
    """

    weights: torch.Tensor | None
    kept: torch.Tensor | None
    metrics: dict[str, float]


@dataclass
class _Totals:
    """Sums over tokens, and one value a row, by name."""

    sums: dict[str, float] = field(default_factory=dict)
    rows: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def merge(cls, blocks: Sequence["_Totals"]) -> "_Totals":
        """Of all blocks, in order."""
        merged = cls()
        for name in blocks[0].sums:
            merged.sums[name] = sum(block.sums[name] for block in blocks)
        for name in blocks[0].rows:
            merged.rows[name] = torch.cat([block.rows[name] for block in blocks])
        return merged


def compute_correction(
    old: torch.Tensor, rollout: torch.Tensor, counts: torch.Tensor, config: Mapping[str, Any]
) -> Correction:
    """Correct for the difference between the policies that trained and sampled.

    Args:
        old: log-probs of the training policy, shape (C,).
        rollout: those of the rollout, shape (C,).
        counts: tokens by row, int64, shape (n,).
        config: ``algorithm.rollout_correction``.

    Raises:
        ValueError: no token counts, or a setting that verl refuses.
    """
    if not len(old):
        raise ValueError("response_mask must contain at least one valid token (1).")
    weighting = _Weighting.read(config)
    rejection = Rejection.read(config)
    token_weights = torch.empty_like(old) if weighting and weighting.per_token else None

    def correct_block(rows: slice, tokens: slice) -> tuple[_Totals, BlockRejection | None]:
        counted, totals = counts[rows], _Totals()
        log_ratio = old[tokens] - rollout[tokens]
        safe = log_ratio.clamp(-SAFETY_BOUND, SAFETY_BOUND)
        ratio = safe.exp()
        exact = ratio if torch.equal(safe, log_ratio) else log_ratio.exp()
        totals.rows = {
            "old": sum_rows(old[tokens], counted),
            "rollout": sum_rows(rollout[tokens], counted),
            "log_ratio": sum_rows(log_ratio, counted),
        }
        totals.sums = {
            "k3": float((exact - log_ratio - 1).sum()),
            "ratio_squared": float(ratio @ ratio),
        }
        if weighting and token_weights is not None:
            token_weights[tokens] = weighting.add_block(ratio, counted, totals)
        return totals, rejection.judge_block(safe, ratio, counted) if rejection else None

    blocks = list(map_blocks(correct_block, counts))
    totals = _Totals.merge([totals for totals, _judged in blocks])
    metrics: dict[str, float] = {}
    weights = token_weights
    if weighting and weighting.per_token:
        metrics |= _describe_token_weights(totals, counts, weighting)
    elif weighting:
        row_weights, metrics = _weigh_rows(totals.rows["log_ratio"], counts, weighting)
        weights = expand_rows(row_weights, counts)
    if weights is not None and weighting and weighting.normalize:
        factor = metrics["rollout_is_batch_norm_factor"]
        weights = weights if factor == 1.0 else weights.div_(factor)
    kept = None
    if rejection:
        kept, rejected = rejection.merge([judged for _totals, judged in blocks if judged], counts)
        metrics |= rejected
    metrics |= _describe_distance(totals, counts)
    return Correction(weights, kept, {f"{PREFIX}{name}": value for name, value in metrics.items()})


def _describe_distance(totals: _Totals, counts: torch.Tensor) -> dict[str, float]:
    """verl's ``compute_offpolicy_metrics``."""
    size = int(counts.sum())
    sampled = counts + 1e-8
    training, rollout = totals.rows["old"] / sampled, totals.rows["rollout"] / sampled
    gap = rollout - training
    product = totals.rows["log_ratio"].clamp(-SAFETY_BOUND, SAFETY_BOUND)
    kl = -float(totals.rows["log_ratio"].sum(dtype=torch.float64)) / size
    return {
        "training_ppl": float((-training).exp().mean()),
        "training_log_ppl": float((-training).mean()),
        "kl": kl,
        "k3_kl": totals.sums["k3"] / size,
        "rollout_ppl": float((-rollout).exp().mean()),
        "rollout_log_ppl": float((-rollout).mean()),
        "log_ppl_diff": float(gap.mean()),
        "log_ppl_abs_diff": float(gap.abs().mean()),
        "log_ppl_diff_max": float(gap.max()),
        "log_ppl_diff_min": float(gap.min()),
        "ppl_ratio": float(gap.exp().mean()),
        "chi2_token": totals.sums["ratio_squared"] / size - 1.0,
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

    def add_block(self, ratio: torch.Tensor, counts: torch.Tensor, totals: _Totals) -> torch.Tensor:
        """Weights of a block's tokens, which are added to ``totals``."""
        weights = self.apply(ratio)
        # A block of rows without tokens has none.
        smallest, largest = weights.aminmax() if len(weights) else (math.inf, -math.inf)
        totals.sums |= {
            "weight": float(weights.sum()),
            "weight_squared": float(weights @ weights),
            "high": float((ratio > self.upper).sum()),
            "low": float((ratio < self.reported_lower).sum()),
        }
        totals.rows |= {
            "weight": sum_rows(weights, counts),
            "ratio": sum_rows(ratio, counts),
            "smallest": torch.tensor([float(smallest)]),
            "largest": torch.tensor([float(largest)]),
        }
        return weights


def _describe_token_weights(
    totals: _Totals, counts: torch.Tensor, weighting: _Weighting
) -> dict[str, float]:
    """verl's ``compute_is_metrics`` of token-level weights."""
    sums, size = totals.sums, int(counts.sum())
    row_weights, row_ratios = (totals.rows[name] / (counts + 1e-8) for name in ("weight", "ratio"))
    mean, square = sums["weight"] / size, sums["weight_squared"] / size
    metrics = {
        "rollout_is_mean": mean,
        "rollout_is_ratio_fraction_high": sums["high"] / size,
        "rollout_is_ratio_fraction_low": sums["low"] / size,
        "rollout_is_max": float(totals.rows["largest"].max()),
        "rollout_is_min": float(totals.rows["smallest"].min()),
        **_describe_moments(mean, square, size),
        **_describe_rows(
            totals.rows["weight"] / (counts + 1e-8),
            totals.rows["ratio"] / (counts + 1e-8),
            weighting,
        ),
    }
    if weighting.lower is not None:
        metrics["rollout_is_oob_ratio"] = (sums["high"] + sums["low"]) / size
    if weighting.normalize:
        metrics["rollout_is_batch_norm_factor"] = mean if mean > 1e-8 else 1.0
    return metrics


def _weigh_rows(
    log_ratio: torch.Tensor, counts: torch.Tensor, weighting: _Weighting
) -> tuple[torch.Tensor, dict[str, float]]:
    """Sequence-level weights, shape (n,), and verl's ``compute_is_metrics`` of them.

    Args:
        log_ratio: sums over each row, shape (n,); rows without tokens take part in verl's means.
    """
    ratio = log_ratio.clamp(-SAFETY_BOUND, SAFETY_BOUND).exp()
    weights, size = weighting.apply(ratio), int(counts.sum())
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
    return weights, metrics


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
