"""verl's rejection sampling: tokens or rows whose policies are too far apart, unpadded.

Stands for ``compute_rollout_rejection_mask`` and ``compute_rs_metrics`` of
``verl.trainer.ppo.rollout_corr_helper``. Tensors are float32; (C,) are the tokens that count, (n,)
rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from verl.trainer.ppo.rollout_corr_helper import (
    SUPPORTED_ROLLOUT_RS_OPTIONS,
    _parse_rollout_rs_thresholds,
)

from verl_pipeline.verl_adapter.jagged.rows import expand_rows, max_rows, sum_rows


@dataclass
class _Judgement:
    """What one criterion found in a block: a value a row (a sum, or the largest), and, if it judges
    tokens, how many of each row it rejects, the range of their divergences, and sums over them.
    """

    row_values: torch.Tensor
    rejected: torch.Tensor | None = None
    smallest: float = math.inf
    largest: float = -math.inf
    high: int = 0
    low: int = 0
    clamped: float = 0.0
    clamped_squared: float = 0.0


@dataclass(frozen=True)
class BlockRejection:
    """A block's tokens that pass the criteria which judge tokens (bool, (C,)), and the rest by
    criterion.
    """

    kept: torch.Tensor
    judgements: list[_Judgement]


@dataclass(frozen=True)
class _Option:
    """One of verl's criteria: a divergence (k1, k2, k3), how a row combines it, and its bounds."""

    name: str
    lower: float
    upper: float

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

    def judge(self, values: torch.Tensor, counts: torch.Tensor, kept: torch.Tensor) -> _Judgement:
        """Judge a block by its divergence; the tokens that fail are taken out of ``kept``."""
        if self.name.startswith("seq_max"):
            return _Judgement(max_rows(values, counts))
        if not self.per_token:
            return _Judgement(sum_rows(values, counts))
        passed = self.passes(values)
        kept &= passed
        clamped = values.clamp(self.lower, self.upper)
        smallest, largest = values.aminmax() if len(values) else (math.inf, -math.inf)
        return _Judgement(
            sum_rows(values, counts),
            rejected=counts - sum_rows(passed, counts),
            smallest=float(smallest),
            largest=float(largest),
            high=int((values > self.upper).sum()),
            low=int((values < self.lower).sum()),
            clamped=float(clamped.sum()),
            clamped_squared=float(clamped @ clamped),
        )


@dataclass(frozen=True)
class Rejection:
    """``rollout_rs``: a token stays if every criterion lets it pass."""

    options: list[_Option]

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

    def judge_block(
        self, safe: torch.Tensor, ratio: torch.Tensor, counts: torch.Tensor
    ) -> BlockRejection:
        """Judge a block of whole rows.

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
        judgements = [
            option.judge(divergences[option.divergence](), counts, kept) for option in self.options
        ]
        return BlockRejection(kept, judgements)

    def merge(
        self, blocks: Sequence[BlockRejection], counts: torch.Tensor
    ) -> tuple[torch.Tensor | None, dict[str, float]]:
        """Which tokens all criteria leave (bool, (C,); None: all of them), and verl's metrics."""
        kept = torch.cat([block.kept for block in blocks])
        metrics: dict[str, float] = {}
        for position, option in enumerate(self.options):
            judged = [block.judgements[position] for block in blocks]
            values = torch.cat([judgement.row_values for judgement in judged])
            if option.per_token:
                metrics |= _describe_tokens(option, judged, values, counts)
                continue
            if option.name.startswith("seq_mean"):
                values = values / (counts + 1e-8)
            passed = option.passes(values)
            kept &= expand_rows(passed, counts)
            metrics |= _describe_row_values(option, values, passed, counts)
        left = sum_rows(kept, counts)
        metrics["rollout_rs_masked_fraction"] = 1.0 - float(left.sum()) / int(counts.sum())
        metrics["rollout_rs_seq_masked_fraction"] = float((left < counts).float().mean())
        return (None if bool(kept.all()) else kept), metrics


def _describe_tokens(
    option: _Option, judged: Sequence[_Judgement], sums: torch.Tensor, counts: torch.Tensor
) -> dict[str, float]:
    """verl's metrics of a criterion that judges tokens; ``sums`` of each row, shape (n,)."""
    size, valid = int(counts.sum()), counts > 0
    rejected = torch.cat([block.rejected for block in judged if block.rejected is not None])
    clamped = sum(block.clamped for block in judged) / size
    variance = sum(block.clamped_squared for block in judged) / size - clamped**2
    own = {
        "mean": float(sums.sum(dtype=torch.float64)) / size,
        "max": max(block.largest for block in judged),
        "min": min(block.smallest for block in judged),
        "fraction_high": sum(block.high for block in judged) / size,
        "fraction_low": sum(block.low for block in judged) / size if option.is_k1 else 0.0,
        "std": max(variance, 0.0) ** 0.5 if size > 1 else 0.0,
        **_describe_sequences(option, (sums / (counts + 1e-8))[valid]),
        "masked_fraction": float(rejected.sum()) / size,
        "seq_masked_fraction": float((rejected[valid] > 0).float().mean()),
    }
    return {f"rollout_rs_{option.name}_{name}": value for name, value in own.items()}


def _describe_row_values(
    option: _Option, values: torch.Tensor, passed: torch.Tensor, counts: torch.Tensor
) -> dict[str, float]:
    """verl's metrics of a criterion that judges rows by ``values``, shape (n,)."""
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
