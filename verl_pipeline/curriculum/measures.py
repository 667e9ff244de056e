"""The ``curriculum/*`` metrics: what the choice of prompts is worth, and what it leaves out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verl_pipeline.curriculum.protocol import GroupOutcome

BINS = 10
# By which share older batches count less in the calibration, batch by batch.
FORGOTTEN = 0.05


def has_signal(outcome: GroupOutcome) -> bool:
    """Whether the group has a group-relative advantage: not all of its members earned the same."""
    return len(outcome.successes) > 1 and bool(np.ptp(outcome.successes) > 0)


class CurriculumMeasures:
    """Counts of a run over ``prompts`` prompts."""

    def __init__(self, prompts: int):
        self._proposed = np.zeros(prompts, dtype=np.int64)
        # By bin of the predicted rate: samples, sum of the predicted and of the seen rates.
        self._bins = np.zeros((BINS, 3))

    def note_proposal(self, rows: np.ndarray) -> None:
        """Rows, each different, are proposed once more."""
        self._proposed[rows] += 1

    def measure(
        self, outcomes: Sequence[GroupOutcome], is_floor: np.ndarray, predicted: np.ndarray
    ) -> dict[str, float]:
        """Metrics of a trained batch.

        Args:
            outcomes: of the m prompts of the batch.
            is_floor: bool, shape (m,).
            predicted: float64, shape (m,); NaN where nothing was predicted.
        """
        known = np.array([len(outcome.successes) > 1 for outcome in outcomes], dtype=bool)
        signal = np.array([has_signal(outcome) for outcome in outcomes], dtype=bool)
        metrics = {
            "curriculum/coverage": float((self._proposed > 0).mean()),
            "curriculum/effective_share": compute_effective_share(self._proposed),
        }
        for name, chosen in (
            ("signal_share", known),
            ("signal_share/floor", known & is_floor),
            ("signal_share/selected", known & ~is_floor),
        ):
            if chosen.any():
                metrics[f"curriculum/{name}"] = float(signal[chosen].mean())
        rated = [outcome for outcome in outcomes if len(outcome.successes)]
        if rated:
            means = [outcome.successes.mean() for outcome in rated]
            metrics["curriculum/pass_rate"] = float(np.mean(means))
        return metrics | self._calibrate(outcomes, predicted)

    def _calibrate(
        self, outcomes: Sequence[GroupOutcome], predicted: np.ndarray
    ) -> dict[str, float]:
        self._bins *= 1 - FORGOTTEN
        pairs = [
            (float(rate), outcome.successes)
            for rate, outcome in zip(predicted, outcomes, strict=True)
            if len(outcome.successes) and not np.isnan(rate)
        ]
        for rate, successes in pairs:
            place = min(int(rate * BINS), BINS - 1)
            self._bins[place] += (len(successes), rate * len(successes), successes.sum())
        samples = self._bins[:, 0].sum()
        if not pairs or not samples:
            return {}
        gaps = np.abs(self._bins[:, 1] - self._bins[:, 2]).sum()
        return {
            "curriculum/predicted_pass_rate": float(np.mean([rate for rate, _seen in pairs])),
            "curriculum/calibration_gap": float(gaps / samples),
        }

    def state_dict(self) -> dict[str, Any]:
        """Of :class:`~verl_pipeline.curriculum.protocol.Selector`."""
        return {"proposed": self._proposed.copy(), "bins": self._bins.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._proposed, self._bins = state["proposed"].copy(), state["bins"].copy()


def compute_effective_share(counts: np.ndarray) -> float:
    """Effective number of different prompts among all that were proposed, as a share of the most
    there could be.

    Args:
        counts: how often each prompt was proposed: int64, shape (n,).

    Returns:
        (sum of the counts)² / (sum of their squares) / min(n, sum of the counts): 1 if all were
        proposed equally often, or no prompt twice; 0 if nothing was proposed.
    """
    total = float(counts.sum())
    if not total:
        return 0.0
    return total**2 / float((counts.astype(np.float64) ** 2).sum()) / min(len(counts), total)
