"""verl's rejection sampling: tokens or rows whose policies are too far apart, unpadded.

Stands for ``compute_rollout_rejection_mask`` and ``compute_rs_metrics`` of
``verl.trainer.ppo.rollout_corr_helper``: what a rank judges, row by row, and what follows of all
rows. Tensors are float32; (C,) are the tokens that count, (n,) rows.

A criterion's columns have its name before them: ``value`` (a sum over the row, or the largest) and,
if it judges tokens, ``rejected``, ``high`` and ``low`` (numbers of tokens), ``smallest`` and
``largest`` (divergences), ``clamped`` and ``clamped_squared`` (sums).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from verl.trainer.ppo.rollout_corr_helper import (
    SUPPORTED_ROLLOUT_RS_OPTIONS,
    _parse_rollout_rs_thresholds,
)

from verl_pipeline.verl_adapter.jagged.rows import expand_rows, max_rows, sum_rows


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

    def judge_tokens(
        self, values: torch.Tensor, counts: torch.Tensor, kept: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Columns of a block by its divergence; the tokens that fail are taken out of ``kept``."""
        if self.name.startswith("seq_max"):
            return {self.value: max_rows(values, counts)}
        columns = {self.value: sum_rows(values, counts)}
        if not self.per_token:
            return columns
        passed = self.passes(values)
        kept &= passed
        clamped = values.clamp(self.lower, self.upper)
        own = {
            "rejected": counts - sum_rows(passed, counts),
            "smallest": -max_rows(-values, counts, empty=-math.inf),
            "largest": max_rows(values, counts, empty=-math.inf),
            "high": sum_rows(values > self.upper, counts),
            "low": sum_rows(values < self.lower, counts),
            "clamped": sum_rows(clamped, counts),
            "clamped_squared": sum_rows(clamped * clamped, counts),
        }
        return columns | {f"{self.name}/{name}": column.float() for name, column in own.items()}

    @property
    def value(self) -> str:
        """The name of its column ``value``."""
        return f"{self.name}/value"

    def find_row_values(
        self, columns: Mapping[str, torch.Tensor], counts: torch.Tensor
    ) -> torch.Tensor:
        """What a criterion that judges rows compares with its bounds, shape (n,)."""
        values = columns[self.value]
        return values / (counts + 1e-8) if self.name.startswith("seq_mean") else values


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
        self, safe: torch.Tensor, ratio: torch.Tensor, counts: torch.Tensor, kept: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Columns of a block of whole rows.

        Args:
            safe: log of training over rollout probability within verl's safety bound, (C,).
            ratio: its exponential, (C,).
            counts: tokens by row, int64, shape (n,).
            kept: bool, (C,); the tokens that a criterion for tokens rejects become False.
        """
        divergences = {
            "k1": lambda: -safe,
            "k2": lambda: 0.5 * safe**2,
            "k3": lambda: ratio - 1.0 - safe,
        }
        columns: dict[str, torch.Tensor] = {}
        for option in self.options:
            columns |= option.judge_tokens(divergences[option.divergence](), counts, kept)
        return columns

    def judge_rows(
        self, columns: Mapping[str, torch.Tensor], counts: torch.Tensor, kept: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Take the rows that fail out of ``kept`` (bool, (C,)), and count the tokens that are
        ``left`` of each.
        """
        for option in self.options:
            if not option.per_token:
                passed = option.passes(option.find_row_values(columns, counts))
                kept &= expand_rows(passed, counts)
        return {"left": sum_rows(kept, counts).float()}

    def describe(
        self, columns: Mapping[str, torch.Tensor], counts: torch.Tensor
    ) -> dict[str, float]:
        """verl's metrics of all rows."""
        metrics: dict[str, float] = {}
        for option in self.options:
            describe_option = _describe_tokens if option.per_token else _describe_row_values
            metrics |= describe_option(option, columns, counts)
        left = columns["left"]
        kept_share = float(left.sum(dtype=torch.float64)) / int(counts.sum())
        metrics["rollout_rs_masked_fraction"] = 1.0 - kept_share
        metrics["rollout_rs_seq_masked_fraction"] = float((left < counts).float().mean())
        return metrics


def _describe_tokens(
    option: _Option, columns: Mapping[str, torch.Tensor], counts: torch.Tensor
) -> dict[str, float]:
    """verl's metrics of a criterion that judges tokens."""
    size, valid = int(counts.sum()), counts > 0
    own = {name: columns[f"{option.name}/{name}"] for name in ("smallest", "largest", "rejected")}
    value, clamped, square, high, low, rejected = (
        float(columns[f"{option.name}/{name}"].sum(dtype=torch.float64)) / size
        for name in ("value", "clamped", "clamped_squared", "high", "low", "rejected")
    )
    described = {
        "mean": value,
        "max": float(own["largest"].max()),
        "min": float(own["smallest"].min()),
        "fraction_high": high,
        "fraction_low": low if option.is_k1 else 0.0,
        "std": max(square - clamped**2, 0.0) ** 0.5 if size > 1 else 0.0,
        **_describe_sequences(option, (columns[option.value] / (counts + 1e-8))[valid]),
        "masked_fraction": rejected,
        "seq_masked_fraction": float((own["rejected"][valid] > 0).float().mean()),
    }
    return {f"rollout_rs_{option.name}_{name}": value for name, value in described.items()}


def _describe_row_values(
    option: _Option, columns: Mapping[str, torch.Tensor], counts: torch.Tensor
) -> dict[str, float]:
    """verl's metrics of a criterion that judges rows."""
    values = option.find_row_values(columns, counts)
    passed = option.passes(values)
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
