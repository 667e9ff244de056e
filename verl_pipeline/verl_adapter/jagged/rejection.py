"""verl's rejection sampling: tokens or rows whose policies are too far apart, unpadded.

Stands for ``compute_rollout_rejection_mask`` and ``compute_rs_metrics`` of
``verl.trainer.ppo.rollout_corr_helper``. Tensors are float32; (C,) are the tokens that count, (n,)
rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from verl.trainer.ppo.rollout_corr_helper import (
    SUPPORTED_ROLLOUT_RS_OPTIONS,
    _parse_rollout_rs_thresholds,
)

from verl_pipeline.verl_adapter.jagged.rows import expand_rows, sum_rows


@dataclass
class _Option:
    """One of verl's criteria: a divergence (k1, k2, k3), how a row combines it, and its bounds.

    The rest grows block by block: one value a row (``row_values``: sums, or the largest), rejected
    tokens by row, and sums over tokens.
    """

    name: str
    lower: float
    upper: float
    row_values: list[torch.Tensor] = field(default_factory=list)
    rejected: list[torch.Tensor] = field(default_factory=list)
    smallest: float = math.inf
    largest: float = -math.inf
    high: int = 0
    low: int = 0
    clamped: float = 0.0
    clamped_squared: float = 0.0

    @property
    def divergence(self) -> str:
        return self.name[-2:]

    @property
    def is_k1(self) -> bool:
        """Whether the lower bound holds too; the others are distances, at least 0."""
        return self.divergence == "k1"

    @property
    def per_token(self) -> bool:
        return self.name.startswith("token")

    def passes(self, values: torch.Tensor) -> torch.Tensor:
        below = values <= self.upper
        return below & (values >= self.lower) if self.is_k1 else below

    def add_block(self, values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor | None:
        """Take in the divergence of a block's tokens; which of them pass, if tokens decide."""
        if self.name.startswith("seq_max"):
            largest = [row.max() if len(row) else row.sum() for row in values.split(counts.tolist())]
            self.row_values.append(torch.stack(largest))
            return None
        self.row_values.append(sum_rows(values, counts))
        if not self.per_token:
            return None
        passed = self.passes(values)
        self.rejected.append(counts - sum_rows(passed.long(), counts))
        self.high += int((values > self.upper).sum())
        self.low += int((values < self.lower).sum())
        clamped = values.clamp(self.lower, self.upper)
        self.clamped += float(clamped.sum())
        self.clamped_squared += float(clamped @ clamped)
        if len(values):
            smallest, largest_value = values.aminmax()
            self.smallest = min(self.smallest, float(smallest))
            self.largest = max(self.largest, float(largest_value))
        return passed


@dataclass
class Rejection:
    """``rollout_rs`` while the blocks of a batch pass."""

    options: list[_Option]
    kept: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Rejection | None":
        """The criteria of ``algorithm.rollout_correction``; None if there are none.

        Raises:
            ValueError: what verl refuses.
        """
        criteria = config.get("rollout_rs", None)
        thresholds = config.get("rollout_rs_threshold", None)
        if criteria is None:
            return None
        if thresholds is None:
            raise ValueError(
                "rollout_rs_threshold must be explicitly provided when rollout_rs is enabled. Set "
                "rollout_rs_threshold to the desired threshold value."
            )
        names = list(dict.fromkeys(name.strip() for name in criteria.split(",") if name.strip()))
        unknown = [name for name in names if name not in SUPPORTED_ROLLOUT_RS_OPTIONS]
        if unknown or not names:
            raise ValueError(
                f"Invalid rollout_rs option: {', '.join(unknown) or criteria!r}. Must be one of "
                f"{sorted(SUPPORTED_ROLLOUT_RS_OPTIONS)}."
            )
        options = []
        for name, bounds in _parse_rollout_rs_thresholds(names, thresholds).items():
            if name.endswith("k1"):
                lower, upper = math.log(bounds["lower"]), math.log(bounds["upper"])
            else:
                lower, upper = 0.0, bounds["upper"]
            options.append(_Option(name, lower, upper))
        return cls(options)

    def add_block(self, safe: torch.Tensor, ratio: torch.Tensor, counts: torch.Tensor) -> None:
        """Take in a block of whole rows.

        Args:
            safe: log of training over rollout probability within verl's safety bound, (C,).
            ratio: its exponential, (C,).
            counts: tokens by row, int64, shape (n,).
        """
        divergences = {
            "k1": lambda: -safe,
            "k2": lambda: 0.5 * safe**2,
            "k3": lambda: ratio - 1.0 - safe,
        }
        kept = torch.ones_like(safe, dtype=torch.bool)
        for option in self.options:
            passed = option.add_block(divergences[option.divergence](), counts)
            if passed is not None:
                kept &= passed
        self.kept.append(kept)

    def finish(self, counts: torch.Tensor) -> tuple[torch.Tensor | None, dict[str, float]]:
        """Which tokens all criteria leave (bool, (C,); None: all of them), and verl's metrics."""
        kept, metrics = torch.cat(self.kept), {}
        for option in self.options:
            values = torch.cat(option.row_values)
            if option.per_token:
                metrics |= _describe_tokens(option, values, counts)
                continue
            if option.name.startswith("seq_mean"):
                values = values / (counts + 1e-8)
            passed = option.passes(values)
            kept &= expand_rows(passed, counts)
            metrics |= _describe_row_values(option, values, passed, counts)
        left = sum_rows(kept.long(), counts)
        metrics["rollout_rs_masked_fraction"] = 1.0 - float(left.sum()) / int(counts.sum())
        metrics["rollout_rs_seq_masked_fraction"] = float((left < counts).float().mean())
        return (None if bool(kept.all()) else kept), metrics


def _describe_tokens(
    option: _Option, sums: torch.Tensor, counts: torch.Tensor
) -> dict[str, float]:
    size, valid = int(counts.sum()), counts > 0
    rejected = torch.cat(option.rejected)
    mean = float(sums.sum(dtype=torch.float64)) / size
    variance = option.clamped_squared / size - (option.clamped / size) ** 2
    own = {
        "mean": mean,
        "max": option.largest,
        "min": option.smallest,
        "fraction_high": option.high / size,
        "fraction_low": option.low / size if option.is_k1 else 0.0,
        "std": max(variance, 0.0) ** 0.5 if size > 1 else 0.0,
        **_describe_sequences(option, (sums / (counts + 1e-8))[valid]),
        "masked_fraction": float(rejected.sum()) / size,
        "seq_masked_fraction": float((rejected[valid] > 0).float().mean()),
    }
    return {f"rollout_rs_{option.name}_{name}": value for name, value in own.items()}


def _describe_row_values(
    option: _Option, values: torch.Tensor, passed: torch.Tensor, counts: torch.Tensor
) -> dict[str, float]:
    size, valid = int(counts.sum()), counts > 0
    share = counts.double() / size
    clamped = values.clamp(option.lower, option.upper)
    variance = float((clamped.square() * share).sum()) - float((clamped * share).sum()) ** 2
    sequences = _describe_sequences(option, values[valid])
    own = {
        "mean": float((values * share).sum()),
        "max": sequences["seq_max"],
        "min": sequences["seq_min"],
        "fraction_high": sequences["seq_fraction_high"],
        "fraction_low": sequences.get("seq_fraction_low", 0.0),
        "std": max(variance, 0.0) ** 0.5 if size > 1 else 0.0,
        **sequences,
        "masked_fraction": float((~passed * share).sum()),
        "seq_masked_fraction": float((~passed[valid]).float().mean()),
    }
    return {f"rollout_rs_{option.name}_{name}": value for name, value in own.items()}


def _describe_sequences(option: _Option, values: torch.Tensor) -> dict[str, float]:
    """``values``: one a row that has tokens."""
    described = {
        "seq_mean": float(values.mean()),
        "seq_std": float(values.std()) if len(values) > 1 else 0.0,
        "seq_max": float(values.max()),
        "seq_min": float(values.min()),
        "seq_max_deviation": float(values.abs().max()),
        "seq_fraction_high": float((values > option.upper).float().mean()),
    }
    if option.is_k1:
        described["seq_fraction_low"] = float((values < option.lower).float().mean())
    return described
