"""What prompts have earned so far, older outcomes counting less.

Invariant: the weight of an outcome halves every ``half_life`` batches, whether or not anything is
added: the policy changes, so that what a prompt earned long ago says little.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verl_pipeline.curriculum.protocol import GroupOutcome


class PromptEvidence:
    """Discounted numbers of solved and tried samples of n prompts.

    Args:
        pass_rates: float64, shape (n,); measured before the training, NaN where not.
        measured_weight: samples that a measured rate counts as.
        half_life: in batches.
    """

    def __init__(self, pass_rates: np.ndarray, measured_weight: float, half_life: float):
        self._half_life = half_life
        known = ~np.isnan(pass_rates)
        # As of batch `_since`, row by row.
        self._tried = np.where(known, measured_weight, 0.0)
        self._solved = np.where(known, pass_rates, 0.0) * self._tried
        self._since = np.zeros(len(pass_rates), dtype=np.int64)

    def read(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Solved and tried samples as they count at ``batch``: float64, shape (n,) each."""
        weight = 0.5 ** ((batch - self._since) / self._half_life)
        return self._solved * weight, self._tried * weight

    def add(self, batch: int, outcomes: Sequence[GroupOutcome]) -> None:
        """Add what prompts earned in ``batch``; a prompt occurs at most once."""
        graded = [outcome for outcome in outcomes if len(outcome.successes)]
        rows = np.array([outcome.row for outcome in graded], dtype=np.int64)
        weight = 0.5 ** ((batch - self._since[rows]) / self._half_life)
        sums = np.array([outcome.successes.sum() for outcome in graded])
        counts = np.array([len(outcome.successes) for outcome in graded])
        self._solved[rows] = self._solved[rows] * weight + sums
        self._tried[rows] = self._tried[rows] * weight + counts
        self._since[rows] = batch

    def state_dict(self) -> dict[str, Any]:
        """Of :class:`~verl_pipeline.curriculum.protocol.Selector`."""
        return {
            "solved": self._solved.copy(),
            "tried": self._tried.copy(),
            "since": self._since.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._solved, self._tried = state["solved"].copy(), state["tried"].copy()
        self._since = state["since"].copy()


class CellPriors:
    """What to expect of a prompt before it has earned anything: a Beta distribution for each.

    A cell is a set of prompts that are thought to be alike; levels of cells go from all prompts to
    the narrowest. Mean and spread of the pass rates in a cell are estimated from its outcomes
    (method of moments, without the spread that few samples have by chance), and drawn towards those
    of the wider cell by :attr:`PULL` groups. A cell whose prompts are all solved or never becomes a
    U, one whose prompts are alike a peak: so the spread says how much a cell tells of its prompts.

    Invariant: only outcomes of prompts that were chosen blindly count; what was selected for its
    pass rate says nothing about the others.

    Args:
        levels: for each level the cell of each prompt, int64, shape (n,), from 0; the widest first.
        half_life: in batches.
    """

    PULL = 4.0
    LEAST, MOST = 0.2, 32.0

    def __init__(self, levels: Sequence[np.ndarray], half_life: float):
        self._levels = levels
        self._half_life = half_life
        # By level, shape (cells, 3): groups, sum of their pass rates, sum of these squared.
        self._sums = [np.zeros((int(level.max()) + 1, 3)) for level in levels]
        self._since = 0

    def add(self, batch: int, outcomes: Sequence[GroupOutcome]) -> None:
        """Add what the blindly chosen prompts of ``batch`` earned."""
        weight = 0.5 ** ((batch - self._since) / self._half_life)
        self._since = batch
        blind = [one for one in outcomes if one.is_blind and len(one.successes) > 1]
        rows = np.array([outcome.row for outcome in blind], dtype=np.int64)
        means = np.array([outcome.successes.mean() for outcome in blind])
        # Of the square of a mean of m samples, this much is chance.
        chance = np.array([one.successes.var() / (len(one.successes) - 1) for one in blind])
        moments = np.stack([np.ones(len(blind)), means, means**2 - chance], axis=1)
        for sums, level in zip(self._sums, self._levels, strict=True):
            sums *= weight
            np.add.at(sums, level[rows], moments)

    def compute(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters a and b of each prompt's distribution: float64, shape (n,) each."""
        # Of the uniform distribution, before anything is known.
        mean, square = np.array(0.5), np.array(1.0 / 3.0)
        for sums, level in zip(self._sums, self._levels, strict=True):
            groups, first, second = sums[level].T
            mean = (self.PULL * mean + first) / (self.PULL + groups)
            square = (self.PULL * square + second) / (self.PULL + groups)
        mean = np.clip(mean, 1e-3, 1 - 1e-3)
        spread = np.maximum(square - mean**2, 1e-6)
        weight = np.clip(mean * (1 - mean) / spread - 1, self.LEAST, self.MOST)
        return weight * mean, weight * (1 - mean)

    def state_dict(self) -> dict[str, Any]:
        """Of :class:`~verl_pipeline.curriculum.protocol.Selector`."""
        return {"sums": [sums.copy() for sums in self._sums], "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._sums = [sums.copy() for sums in state["sums"]]
        self._since = state["since"]
